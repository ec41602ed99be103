"""A run folder stands up to being killed at any moment, and to being altered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.errors import IndexDamagedError, RunError
from exsearch.runs import (
    MANIFEST,
    append_jsonl,
    in_chunks,
    is_complete,
    locked,
    new_folder,
    read_jsonl,
    sha256_file,
    verify_folder,
    write_atomic,
)


class Killed(BaseException):
    """Stands for a kill: nothing in the code catches it."""


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def fill(path, **files):
    with new_folder(path) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


def test_a_file_is_written_whole(tmp_path):
    file = tmp_path / "a.json"
    write_atomic(file, "é")
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == ["a.json"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomic(file, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_appears_whole_with_its_manifest(tmp_path):
    path = tmp_path / "deep" / "index"
    with new_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("x")
        assert not path.exists()
        assert folder.parent == path.parent  # a rename, never a copy
    assert is_complete(path)
    assert json.loads((path / MANIFEST).read_text())["files"] == {
        "sub/a": {"bytes": 1, "sha256": sha256_file(path / "sub" / "a")}
    }
    verify_folder(path)
    assert names(tmp_path / "deep") == ["index"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_folder_stands_and_nothing_else(tmp_path, error):
    path = tmp_path / "index"
    fill(path, a="old")
    with pytest.raises(error), new_folder(path) as folder:
        (folder / "a").write_text("new")
        raise error
    assert (path / "a").read_text() == "old"
    assert names(tmp_path) == ["index"]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "index"
    fill(path, a="old", b="old")
    fill(path, a="new")
    assert names(path) == ["a", MANIFEST]
    assert (path / "a").read_text() == "new"
    assert names(tmp_path) == ["index"]


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "index"
    fill(path, a="old")
    rename = Path.rename

    def broken(self, target):
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="Input/output"):
        fill(path, a="new")
    assert (path / "a").read_text() == "old"
    assert names(tmp_path) == ["index"]


DIE_WHILE_WRITING = """
import os, pathlib, signal, sys
from exsearch.runs import new_folder
with new_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "index"
    killed = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert [n.split(".")[1] for n in names(tmp_path)] == ["index"]
    (tmp_path / ".index-2.1.tmp").mkdir()
    fill(path, a="whole")
    assert names(tmp_path) == [".index-2.1.tmp", "index"]


def test_what_a_live_process_is_writing_is_left_alone(tmp_path):
    path = tmp_path / "index"
    with new_folder(path) as mine:
        other = mine.rename(tmp_path / f".index.{os.getpid() + 1}.tmp")
        fill(path, a="theirs")
        assert other.is_dir()
        other.rename(mine)
    assert names(tmp_path) == ["index"]


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "f", a="one", b="two")
    return tmp_path / "f"


def manifest(folder, files):
    (folder / MANIFEST).write_text(json.dumps({"files": files}))


def test_an_altered_file_is_named(folder):
    (folder / "b").write_text("two!")
    with pytest.raises(RunError, match=r"f/b: has 4 bytes, its manifest says 3; build it anew"):
        verify_folder(folder, remedy="build it anew")
    (folder / "b").write_text("TWO")
    verify_folder(folder, hashes=False)
    with pytest.raises(IndexDamagedError, match=r"f/b: altered"):
        verify_folder(folder, IndexDamagedError)
    (folder / "b").unlink()
    with pytest.raises(RunError, match=r"f/b: missing"):
        verify_folder(folder)


def test_a_folder_that_is_not_one(tmp_path, folder):
    with pytest.raises(RunError, match=r"none: no such folder; x"):
        verify_folder(tmp_path / "none", remedy="x")
    (folder / MANIFEST).unlink()
    assert not is_complete(folder)
    with pytest.raises(RunError, match="incomplete"):
        verify_folder(folder)


@pytest.mark.parametrize("name", ["../a", "/etc/hostname", "sub/../../a", "link"])
def test_a_manifest_cannot_name_a_file_outside(folder, tmp_path, name):
    (tmp_path / "a").write_text("one")
    (folder / "link").symlink_to(tmp_path / "a")
    manifest(folder, {name: {"bytes": 3, "sha256": sha256_file(tmp_path / "a")}})
    with pytest.raises(RunError, match="names a file outside its folder"):
        verify_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "3",
        '{"files": []}',
        '{"files": null}',
        '{"files": {"a": null}}',
        '{"files": {"a": {}}}',
        '{"files": {"a": {"bytes": 3}}}',
        '{"files": {"a": {"bytes": "x", "sha256": ""}}}',
        '{"files": {"a": {"bytes": [], "sha256": ""}}}',
        '{"files": {"a\\u0000": {"bytes": 1, "sha256": ""}}}',
    ],
)
def test_a_malformed_manifest_is_damage(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json: damaged; x"):
        verify_folder(folder, remedy="x")


def test_a_manifest_that_is_not_text_is_damage(folder):
    (folder / MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="damaged"):
        verify_folder(folder)


def test_lines_are_appended(tmp_path):
    file = tmp_path / "m.jsonl"
    assert list(read_jsonl(file)) == []
    append_jsonl(file, ["1", '{"é": 2}'])
    append_jsonl(file, [])
    append_jsonl(file, ["3"])
    assert list(read_jsonl(file)) == [1, {"é": 2}, 3]


@given(st.binary(max_size=30).filter(lambda tail: b"\n" not in tail))
def test_a_torn_line_is_passed_over_and_then_cut_off(tmp_path_factory, tail):
    file = tmp_path_factory.mktemp("torn") / "m.jsonl"
    for whole in (b"", b"1\n2\n"):
        file.write_bytes(whole + tail)
        before = [1, 2] if whole else []
        assert list(read_jsonl(file)) == before
        append_jsonl(file, ["3"])
        assert list(read_jsonl(file)) == [*before, 3]


def test_a_whole_line_that_is_not_json_is_named(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text("1\nx\n2\n")
    with pytest.raises(RunError, match=r"m\.jsonl:2: not JSON"):
        list(read_jsonl(file))


class Work:
    """Turns numbers to lines; dies at the given one, after the chunk's first lines were written."""

    def __init__(self, die_at=None):
        self.die_at = die_at
        self.chunks = []

    def __call__(self, chunk):
        self.chunks.append(list(chunk))
        return self.lines(chunk), {"first": chunk[0]}

    def lines(self, chunk):
        for n in chunk:
            if n == self.die_at:
                raise Killed
            yield json.dumps({"n": n})


def numbers(file):
    return [line["n"] for line in read_jsonl(file)]


def test_chunks_are_committed_whole(tmp_path):
    file, work = tmp_path / "t.jsonl", Work()
    facts = in_chunks(range(7), 3, file, work)
    assert work.chunks == [[0, 1, 2], [3, 4, 5], [6]]
    assert numbers(file) == list(range(7))
    assert [f["first"] for f in facts] == [0, 3, 6]
    again = Work()
    assert in_chunks(range(7), 3, file, again) == facts
    assert again.chunks == []
    assert in_chunks([], 3, tmp_path / "none.jsonl", again) == []


@pytest.mark.parametrize("die_at", range(7))
def test_a_killed_run_goes_on_with_the_same_chunks(tmp_path, die_at):
    whole, file, work = tmp_path / "whole.jsonl", tmp_path / "t.jsonl", Work(die_at)
    in_chunks(range(7), 3, whole, Work())
    with pytest.raises(Killed):
        in_chunks(range(7), 3, file, work)
    second = Work()
    in_chunks(range(7), 3, file, second)
    assert work.chunks[:-1] + second.chunks == [[0, 1, 2], [3, 4, 5], [6]]
    assert file.read_bytes() == whole.read_bytes()


def kept_bytes(commits, n):
    return b"".join(commits.read_bytes().splitlines(keepends=True)[:n])


@pytest.mark.parametrize("committed", range(4))
@pytest.mark.parametrize("torn", [b"", b'{"first": 3, "by', b"{"])
@pytest.mark.parametrize("extra", [b"", b'{"n": 99}\n', b'{"n": 9'])
def test_a_kill_between_writing_and_committing(tmp_path, committed, torn, extra):
    """Lines past the last commit and a torn commit are as if they were not there."""
    whole, file = tmp_path / "whole.jsonl", tmp_path / "t.jsonl"
    facts = in_chunks(range(7), 3, whole, Work())
    end = facts[committed - 1]["bytes"] if committed else 0
    file.write_bytes(whole.read_bytes()[:end] + extra)
    file.with_suffix(".chunks").write_bytes(
        kept_bytes(whole.with_suffix(".chunks"), committed) + torn
    )
    assert in_chunks(range(7), 3, file, Work()) == facts
    assert file.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("lost", ["all", "a byte"])
def test_committed_lines_that_are_gone_are_no_silent_loss(tmp_path, lost):
    file = tmp_path / "t.jsonl"
    in_chunks(range(6), 3, file, Work())
    if lost == "all":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(RunError, match=r"t\.jsonl: has \d+ bytes where t\.chunks says 54"):
        in_chunks(range(9), 3, file, Work())


def test_one_process_holds_a_run(tmp_path):
    folder = tmp_path / "runs" / "a"
    with locked(folder):
        with (
            pytest.raises(RunError, match="another process is working on this run"),
            locked(folder),
        ):
            pass
        with (
            locked(tmp_path / "runs" / "b"),
            locked(folder, "t.jsonl"),
            locked(folder, "u.jsonl"),
            pytest.raises(RunError, match=r"a/t\.jsonl: another process"),
            locked(folder, "t.jsonl"),
        ):
            pass
    with locked(folder):
        pass


HOLD = """
import pathlib, sys
from exsearch.runs import locked
with locked(pathlib.Path(sys.argv[1])):
    sys.stdout.write("held")
    sys.stdout.flush()
    sys.stdin.read()
"""


def test_the_lock_falls_with_its_process(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], **pipes) as process:
        assert process.stdout.read(4) == b"held"
        with pytest.raises(RunError), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path):
        pass
