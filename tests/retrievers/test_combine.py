"""A combined folder names its places, and leads neither to strangers nor in circles."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.errors import ConfigError, IndexDamagedError, ModelError
from exsearch.records import Passage
from exsearch.retrievers import RETRIEVERS, build_index, open_retriever
from exsearch.retrievers.combine import combine
from exsearch.retrievers.hybrid import Fusion
from exsearch.retrievers.rerank import Reranking
from exsearch.runs import new_folder
from places import PASSAGES
from tiny_rerankers import save_tiny_cross_encoder

QUERIES = ["Who discovered polonium and radium?", "the longest river in Poland"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combine")
    build_index(PASSAGES, folder / "one", progress=False)
    build_index(PASSAGES, folder / "two", settings={"title_weight": 0}, progress=False)
    save_tiny_cross_encoder(folder / "cross")
    return folder


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    """Two indexes and a model in a folder of one's own."""
    return shutil.copytree(made, tmp_path / "base")


class Server:
    """A search server's retriever, which says where it was asked."""

    opened: ClassVar[list[str]] = []

    def __init__(self, place: str):
        self.opened.append(place)

    @classmethod
    def open(cls, place: str) -> Server:
        return cls(place)

    def search(self, queries: Any, k: int) -> list[list[Passage]]:
        return [[] for _ in queries]

    def fetch(self, ids: Any) -> list[Any]:
        return [None for _ in ids]

    def identity(self) -> str:
        return "server"


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    monkeypatch.setitem(RETRIEVERS, "test", Server)  # type: ignore[arg-type]
    monkeypatch.delenv("EXSEARCH_ALLOW_HOST", raising=False)
    monkeypatch.setattr(Server, "opened", [])
    return Server


def ids(place: Path) -> list[list[str]]:
    return [[p.id for p in found] for found in open_retriever(place).search(QUERIES, 5)]


def test_a_folder_can_be_moved_with_what_it_names(base: Path, tmp_path: Path):
    combine([base / "one", base / "two"], base / "in" / "hybrid")
    facts = json.loads((base / "in" / "hybrid" / "retriever.json").read_text())
    assert facts["places"] == ["../../one", "../../two"]
    found, identity = ids(base / "in" / "hybrid"), open_retriever(base / "in" / "hybrid").identity()
    base.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "in" / "hybrid"
    assert (ids(moved), open_retriever(moved).identity()) == (found, identity)
    (tmp_path / "link").symlink_to(moved)
    assert ids(tmp_path / "link") == found
    assert str(tmp_path) not in (moved / "retriever.json").read_text()


def test_one_command_fuses_and_re_ranks(base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(base)
    command = ["combine", "one", "two", "--out", "all", "--weights", "2,1", "--depth", "9"]
    result = CliRunner().invoke(
        cli, [*command, "--rerank", "cross/model", "--first", "7", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"index": "all", "places": ["one", "two"], "hosts": []}
    combine(["one", "two"], Path("hybrid"), fusion=Fusion(weights=(2, 1), depth=9))
    combine(["hybrid"], Path("re-ranked"), reranking=Reranking("cross/model", first=7))
    assert ids(Path("all")) == ids(Path("re-ranked")) != ids(Path("hybrid"))
    identity = open_retriever("all").identity()
    assert open_retriever("re-ranked").identity() == identity
    assert CliRunner().invoke(cli, [*command, "--rerank", "cross/model"]).exit_code == 0  # in place
    assert open_retriever("all").identity() != identity


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one"], "nothing to combine"),
        (["one", "one"], "a place is given twice"),
        (["one", "none"], "none: no such folder"),
        (["one", "two", "--weights", "1"], "1 weights for 2 places"),
        (["one", "two", "--weights", "1,x"], "weights"),
        (["one", "two", "--weights", "1,0"], "expected numbers above 0"),
        (["one", "two", "--first", "3"], "--first goes with --rerank"),
        (["one", "--rerank", "cross/model", "--depth", "3"], "--depth goes with several places"),
        (["one", "two", "--score-by", "bi-encoder"], "--score-by goes with --rerank"),
        (["one", "--rerank", "./none"], "no such model"),
        (["one", "--rerank", "cross/bert"], "does not say how it scores"),
        (["one", "cross/model"], "incomplete, it has no manifest"),
    ],
)
def test_what_can_not_be_combined(
    base: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
):
    monkeypatch.chdir(base)
    result = CliRunner().invoke(cli, ["combine", *arguments, "--out", "out"])
    assert result.exit_code in (2, 4, 5)
    assert said in result.output
    assert not Path("out").exists()


def test_what_is_no_index_is_not_written_over(base: Path):
    with pytest.raises(ConfigError, match="exists and is no index"):
        combine([base / "one", base / "two"], base / "cross")


def forged(folder: Path, **facts: Any) -> Path:
    """A combined folder that says what it likes, with a manifest that vouches for it."""
    with new_folder(folder) as new:
        facts = {"kind": "hybrid", "version": 1} | facts
        (new / "retriever.json").write_text(json.dumps(facts))
    return folder


def test_circles_are_one_line(base: Path):
    places = ["../one", "../b"]
    for name, other in (("a", "../b"), ("b", "../a"), ("own", "../own"), ("dot", ".")):
        forged(base / name, places=["../one", other])
    for name in ("a", "b", "own", "dot"):
        with pytest.raises(IndexDamagedError, match="leads back to itself") as error:
            open_retriever(base / name)
        assert len(str(error.value).splitlines()) == 1
    forged(base / "c", places=places)
    with pytest.raises(IndexDamagedError, match="leads back to itself"):
        combine([base / "c", base / "two"], base / "a")
    combine([base / "one", base / "two"], base / "fine")
    with pytest.raises(IndexDamagedError, match="leads back to itself"):
        combine([base / "fine", base / "two"], base / "fine")


def test_depths_have_an_end(base: Path):
    forged(base / "0", places=["../one"])
    for n in range(1, 12):
        forged(base / str(n), places=[f"../{n - 1}"])
    assert ids(base / "6") == ids(base / "0")
    with pytest.raises(IndexDamagedError, match="nested 8 deep"):
        open_retriever(base / "11")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"places": []},
        {"places": [1]},
        {"places": [""]},
        {"places": "../one"},
        {"places": ["../one"] * 17},
        {"places": ["../one"], "version": 2},
        {"places": ["../one"], "version": True},
        {"places": ["../one"], "kind": "rerank"},
        {"places": ["../one", "../two"], "kind": "rerank", "model": "m"},
        {"places": ["../one"], "depth": 0},
        {"places": ["../one"], "weights": [1, 2]},
        {"places": ["../one"], "strange": 1},
        {"places": ["../none"]},
        {"places": ["\0"]},
    ],
)
def test_a_folder_that_can_not_be_meant_is_one_line(base: Path, facts: dict[str, Any]):
    with pytest.raises(IndexDamagedError) as error:
        open_retriever(forged(base / "forged", **facts))
    assert len(str(error.value).splitlines()) == 1
    assert str(base) in str(error.value)


def test_damaged_files_are_refused(base: Path):
    model = str(base / "cross" / "model")
    combine([base / "one", base / "two"], base / "all", reranking=Reranking(model))
    for file in sorted(p for p in (base / "all").rglob("*") if p.is_file()):
        whole = file.read_bytes()
        for content in (whole[:-1] + b"\0", whole[: len(whole) // 2], whole + b"\0", None):
            file.unlink() if content is None else file.write_bytes(content)
            with pytest.raises(IndexDamagedError):
                open_retriever(base / "all")
            file.write_bytes(whole)
    assert open_retriever(base / "all")
    (base / "cross" / "model" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError):
        open_retriever(base / "all")


@pytest.mark.parametrize("nested", [False, True])
def test_no_host_is_asked_that_only_a_folder_names(
    base: Path, server: type[Server], monkeypatch: pytest.MonkeyPatch, nested: bool
):
    place = forged(base / "strange", places=["../one", "test://Stranger.example:80/x"])
    if nested:
        place = forged(base / "outer", places=["../strange"])
    for hosts in ((), ("example", "other.example", "test://")):
        with pytest.raises(ConfigError, match=r"stranger\.example: .* --allow-host stranger\."):
            open_retriever(place, hosts=hosts)
    assert server.opened == []
    open_retriever(place, hosts=["STRANGER.example"])
    monkeypatch.setenv("EXSEARCH_ALLOW_HOST", "one.example stranger.example")
    open_retriever(place)
    assert server.opened == ["test://Stranger.example:80/x"] * 2
    open_retriever("test://any.example")  # the user says it himself


@pytest.mark.parametrize(
    "address",
    [
        "test://localhost/?a=b&hostaddr=stranger.example",
        "test://stranger.example\\@localhost/",
        "test://localhost,stranger.example/",
        "test://localhost/?host=stranger.example",
        "test://localhost/#@stranger.example",
        "test://[localhost",
        "test://local host/",
        "http:///stranger.example",
    ],
)
def test_an_address_that_hides_its_host_is_named_whole(
    base: Path, server: type[Server], monkeypatch: pytest.MonkeyPatch, address: str
):
    place = forged(base / "strange", places=[address])
    with pytest.raises(ConfigError, match=r"--allow-host [a-z]+://"):
        open_retriever(place, hosts=["localhost", "stranger.example"])
    assert server.opened == []
    monkeypatch.setitem(RETRIEVERS, "http", Server)  # type: ignore[arg-type]
    open_retriever(place, hosts=[address])
    assert server.opened == [address]


def test_a_user_is_no_host_and_a_socket_has_none(base: Path, server: type[Server]):
    place = forged(base / "strange", places=["test://localhost@stranger.example/x?table=y"])
    with pytest.raises(ConfigError, match=r"--allow-host stranger\.example"):
        open_retriever(place, hosts=["localhost"])
    open_retriever(place, hosts=["stranger.example"])
    open_retriever(forged(base / "local", places=["test:///x?table=y&host=/run/it"]))
    assert len(server.opened) == 2


def test_the_command_says_which_hosts_it_needs(base: Path, server: type[Server]):
    command = ["combine", str(base / "one"), "test://a.example", "--out", str(base / "out")]
    result = CliRunner().invoke(cli, command)
    assert "it asks a.example: to use it, name that host: --allow-host a.example" in result.output
    forged(base / "strange", places=["test://b.example"])
    again = ["combine", str(base / "one"), str(base / "strange"), "--out", str(base / "out")]
    assert CliRunner().invoke(cli, again).exit_code == 2
    assert CliRunner().invoke(cli, [*again, "--allow-host", "b.example"]).exit_code == 0
    assert "EXSEARCH_ALLOW_HOST" not in os.environ


ASK = ["ask", "Who?", "--engine", "scripted", "--model"]


def test_every_command_takes_hosts(base: Path, server: type[Server]):
    script = base / "script.jsonl"
    script.write_text('{"contains": "", "reply": "x"}\n')
    place = str(forged(base / "strange", places=["test://b.example"]))
    for command in (
        [*ASK, str(script)],
        ["rollout", "--questions", "sample:test", "--limit", "1", "--out", str(base / "t.jsonl")],
        ["evaluate", "--questions", "sample:test", "--limit", "1", "--out", str(base / "e")],
    ):
        engine = [] if command[0] == "ask" else ["--engine", "scripted", "--model", str(script)]
        command = [*command, *engine, "--index", place]
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 2 and "--allow-host b.example" in result.output
        result = CliRunner().invoke(cli, [*command, "--allow-host", "b.example"])
        assert "allow-host" not in result.output
    assert set(server.opened) == {"test://b.example"}


def test_a_recipe_s_index_may_not_name_a_host_either(base: Path):
    from exsearch.jobs.train import train

    forged(base / "strange", places=["test://b.example"])
    recipe = base / "r.toml"
    recipe.write_text('name = "r"\n[retriever]\nindex = "strange"\n')
    with pytest.raises(ConfigError, match=r"--allow-host b\.example"):
        train(recipe, out=base / "run")
    recipe.write_text('name = "r"\n[retriever]\nindex = "test://b.example"\n')
    with pytest.raises(ConfigError, match=r"--allow-host b\.example"):
        train(recipe, out=base / "run")


def test_there_is_nothing_to_build(base: Path):
    for kind in ("hybrid", "rerank"):
        with pytest.raises(ConfigError, match="exsearch combine"):
            build_index(PASSAGES, base / "new", kind=kind)
