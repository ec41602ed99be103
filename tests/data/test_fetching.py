"""Official files come over a real connection, and only the published ones are kept."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from exsearch.cli import cli
from exsearch.data import FETCHED, FORMATS, fetching
from exsearch.data.fetching import HOMES, Home, Official, fetch
from exsearch.errors import ConfigError, DataError

ITEM = {
    "_id": "q1",
    "question": "Who wrote it?",
    "answer": "Ada",
    "supporting_facts": [["Book", 0]],
    "context": [["Book", ["Ada wrote it."]], ["Other", ["Nobody did."]]],
}
FILE = json.dumps([ITEM] + [{**ITEM, "_id": f"q{n}"} for n in range(2, 400)]).encode()


@dataclasses.dataclass
class Server:
    """A server of one file, with the faults that a test wants.

    Attributes:
        body: The file.
        break_after: Bytes of a reply after which the connection breaks; 0 for whole replies.
        ranges: Whether a part can be asked for.
        page: Whether a web page comes in place of the file.
        status: The status of a reply in place of the file; 0 gives the file.
        asked: The ranges that were asked for so far.
    """

    body: bytes = FILE
    break_after: int = 0
    ranges: bool = True
    page: bool = False
    status: int = 0
    asked: list[str] = dataclasses.field(default_factory=list)
    address: str = ""


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            if state.status:
                self.send_error(state.status)
                return
            start = int(asked[6:-1]) if asked and state.ranges else 0
            self.send_response(206 if start else 200)
            kind = "text/html; charset=utf-8" if state.page else "application/octet-stream"
            self.send_header("Content-Type", kind)
            rest = state.body[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.break_after or None])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/moved"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "_BACKOFF", 0.001)
    with serving() as state:
        yield state


def home(server: Server, body: bytes = FILE, **members: str) -> dict[str, Home]:
    """A home of HotpotQA with one file of these bytes, on that server."""
    official = Official(server.address, len(body), hashlib.sha256(body).hexdigest(), members)
    return {"hotpotqa": Home("https://a.example", "free", {"train.json": official})}


def test_a_file_is_fetched_once_and_converted(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    summary = fetch("hotpotqa", tmp_path / "out", cache=cache, homes=home(server))
    assert summary["questions"] == {"train.jsonl": 399} and summary["passages"] == 2
    assert summary["licence"] == "free"
    first, _, _ = (tmp_path / "out" / "train.jsonl").read_text().partition("\n")
    assert json.loads(first)["answers"] == ["Ada"]
    fetch("hotpotqa", tmp_path / "again", cache=cache, homes=home(server))
    assert server.asked == [""]  # the second time the cache served
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "cache", "out"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_broke_off_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    """Where the server gives no parts, the file is taken from its start."""
    third = len(FILE) // 3 + 1
    server.break_after, server.ranges = third, ranges
    if not ranges:
        with pytest.raises(DataError, match="the transfer failed"):
            fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))
        assert not (tmp_path / "out").exists()
        server.break_after = 0
    fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))
    if ranges:
        assert server.asked == ["", f"bytes={third}-", f"bytes={2 * third}-"]
    assert (tmp_path / "cache" / "train.json").read_bytes() == FILE


def test_another_file_than_the_published_one_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.body = FILE.replace(b"Ada", b"Eve")
    with pytest.raises(DataError, match=r"not the published file.*nothing was kept.*browser"):
        fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))
    assert not list((tmp_path / "cache").glob("train*")) and not (tmp_path / "out").exists()
    server.body = FILE + b" "
    with pytest.raises(DataError, match="gave more than the"):
        fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))


@pytest.mark.parametrize(
    ("status", "page", "message", "attempts"),
    [
        (404, False, "HTTP 404. Try again later, or", 1),
        (503, False, "HTTP 503", 5),
        (0, True, "gave a page in place of the file", 1),
    ],
)
def test_a_server_that_refuses_is_named(
    server: Server, tmp_path: Path, status: int, page: bool, message: str, attempts: int
) -> None:
    server.status, server.page = status, page
    with pytest.raises(DataError, match=message) as told:
        fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))
    assert len(server.asked) == attempts and "\n" not in str(told.value)
    # What the message says helps: a file that came in another way serves.
    (tmp_path / "cache" / "train.json").write_bytes(FILE)
    fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))
    (tmp_path / "cache" / "train.json").write_bytes(b"[]")
    with pytest.raises(DataError, match=r"train\.json: not the published file"):
        fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))


def test_files_of_an_archive_are_taken_out_by_name(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data/official_dev.json", FILE)
        archive.writestr("__MACOSX/other.json", b"junk")
    server.body = packed.getvalue()
    at = home(server, server.body, **{"dev.json": "official_dev.json"})
    fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=at)
    assert (tmp_path / "out" / "dev.jsonl").exists()
    at = home(server, server.body, **{"dev.json": "another.json"})
    with pytest.raises(DataError, match=r"has no another\.json"):
        fetch("hotpotqa", tmp_path / "b", cache=tmp_path / "cache", homes=at)
    server.body = b"PK not an archive"
    at = home(server, server.body, **{"dev.json": "a.json"})
    with pytest.raises(DataError, match="no archive that can be read"):
        fetch("hotpotqa", tmp_path / "b", cache=tmp_path / "other", homes=at)
    assert not (tmp_path / "b").exists()


def test_what_stands_there_is_looked_at_before_anything_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="converted data set"):
        fetch("hotpotqa", tmp_path / "out", cache=tmp_path / "cache", homes=home(server))
    with pytest.raises(ConfigError, match="no data set 'hotpot' can be fetched; there are"):
        fetch("hotpot", tmp_path / "out2", cache=tmp_path / "cache", homes=home(server))
    assert not server.asked and not (tmp_path / "cache").exists()


def test_homes_are_complete() -> None:
    assert tuple(HOMES) == FETCHED and set(FETCHED) <= set(FORMATS)
    for name, there in HOMES.items():
        assert there.page.startswith("https://") and there.licence, name
        for file in there.files.values():
            assert len(file.sha256) == 64 and int(file.sha256, 16) and file.bytes > 100_000


def test_the_command_says_what_it_wrote(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(fetching.HOMES, "hotpotqa", home(server)["hotpotqa"])
    monkeypatch.setitem(fetching.HOMES, "musique", home(server)["hotpotqa"])
    command = ["data", "fetch", "hotpotqa", "--out", str(tmp_path / "out"), "-q"]
    said = CliRunner().invoke(cli, command)
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines() == [
        "hotpotqa: free, https://a.example",
        f"{tmp_path / 'out' / 'hotpotqa' / 'train.jsonl'}: 399 questions",
        f"{tmp_path / 'out' / 'hotpotqa' / 'corpus.jsonl'}: 2 passages",
    ]
    told = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert told["data"]["hotpotqa"]["questions"] == {"train.jsonl": 399}
    # The file of another data set's form is named, and what was fetched before it stands.
    failed = CliRunner().invoke(cli, [*command, "musique"])
    assert failed.exit_code == 3 and "train.json" in failed.stderr
    assert (tmp_path / "out" / "hotpotqa").is_dir() and not (tmp_path / "out" / "musique").exists()


def test_the_command_names_the_file_and_the_way_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "_ATTEMPTS", 1)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    said = CliRunner().invoke(cli, ["data", "fetch", "hotpotqa", "--out", str(tmp_path), "-q"])
    place = tmp_path / "cache" / "data" / "hotpotqa" / "train.json"
    assert said.exit_code == 3 and f"such as a browser, to {place} (SHA-256" in said.stderr
    assert said.stderr.count("\n") == 1 and not (tmp_path / "hotpotqa").exists()
    wrong = CliRunner().invoke(cli, ["data", "fetch", "hotpot", "--out", str(tmp_path)])
    assert wrong.exit_code == 2 and "hotpotqa" in wrong.stderr
