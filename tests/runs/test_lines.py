"""JSON lines and their commits stand up to being killed at any moment, and to being altered."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.errors import RunError
from exsearch.runs import append_jsonl, companion, in_chunks, read_jsonl


class Killed(BaseException):
    """Stands for a kill: nothing in the code catches it."""


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
    with pytest.raises(RunError, match=r"m\.jsonl:2: damaged \(.*put the file back"):
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
    commits = companion(whole, "chunks")
    end = list(read_jsonl(commits))[committed - 1]["bytes"] if committed else 0
    companion(file, "chunks").write_bytes(kept_bytes(commits, committed) + torn)
    file.write_bytes(whole.read_bytes()[:end] + extra)
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
    with pytest.raises(RunError, match=r"t\.jsonl: has \d+ bytes where t\.jsonl\.chunks says 54"):
        in_chunks(range(9), 3, file, Work())


@pytest.mark.parametrize("place", [0, 10, 30, 53])
def test_committed_lines_that_were_altered_are_found_before_anybody_reads_them(tmp_path, place):
    file = tmp_path / "t.jsonl"
    in_chunks(range(6), 3, file, Work())
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match=r"t\.jsonl: altered: bytes \d+ to \d+ are not what line "):
        in_chunks(range(9), 3, file, Work())
    with pytest.raises(RunError, match="altered"):
        in_chunks(range(6), 3, file, Work())  # nothing is left to do, but somebody will read it


@pytest.mark.parametrize(
    "line",
    ["3", "[]", "{}", '{"bytes": "x"}', '{"bytes": null}', "[" * 100_000, '{"bytes": -1}'],
    ids=lambda line: line[:20],
)
def test_damaged_commits_are_named(tmp_path, line):
    file = tmp_path / "t.jsonl"
    in_chunks(range(3), 3, file, Work())
    companion(file, "chunks").write_text(f"{line}\n")
    with pytest.raises(RunError, match=r"t\.jsonl\.chunks:?1?: damaged.* put "):
        in_chunks(range(3), 3, file, Work())


def test_a_file_that_was_not_begun_here_is_left_alone(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text("years of work")
    with pytest.raises(RunError, match=r"t\.jsonl: exists and was not begun by this command"):
        in_chunks(range(3), 3, file, Work())
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"link\.jsonl: a link"):
        in_chunks(range(3), 3, link, Work())
    with pytest.raises(RunError, match=r"link\.jsonl: a link"):
        append_jsonl(link, ["1"])
    assert {p.name: p.read_text() for p in tmp_path.glob("*.jsonl") if p != link} == {
        "t.jsonl": "years of work"
    }
    assert not (tmp_path / "elsewhere").exists()


def test_deleted_commits_do_not_empty_their_file(tmp_path):
    file = tmp_path / "t.jsonl"
    in_chunks(range(6), 3, file, Work())
    companion(file, "chunks").unlink()
    with pytest.raises(RunError, match="was not begun"):
        in_chunks(range(6), 3, file, Work())
    assert numbers(file) == list(range(6))


def test_files_that_differ_in_their_ending_have_commits_of_their_own(tmp_path):
    for ending in ("jsonl", "json", "chunks", "jsonl.chunks.1"):
        in_chunks(range(3), 3, tmp_path / f"t.{ending}", Work())
        assert numbers(tmp_path / f"t.{ending}") == [0, 1, 2]
    in_chunks(range(6), 3, tmp_path / "t.json", Work())
    assert numbers(tmp_path / "t.jsonl") == [0, 1, 2]


@pytest.fixture
def older(tmp_path):
    """A file whose commits are named and written as older versions did: without a hash."""
    file = tmp_path / "t.jsonl"
    in_chunks(range(6), 3, file, Work())
    commits = companion(file, "chunks")
    lines = [{"first": c["first"], "bytes": c["bytes"]} for c in read_jsonl(commits)]
    (tmp_path / "t.chunks").write_text("".join(json.dumps(line) + "\n" for line in lines))
    commits.unlink()
    return file


def test_what_an_older_version_began_goes_on(tmp_path, older):
    whole, work = tmp_path / "whole.jsonl", Work()
    facts = in_chunks(range(9), 3, whole, Work())
    assert in_chunks(range(9), 3, older, work) == facts
    assert work.chunks == [[6, 7, 8]]
    assert older.read_bytes() == whole.read_bytes()
    assert not companion(whole, "chunks").samefile(companion(older, "chunks"))


def test_an_older_version_s_commits_are_of_one_file_only(tmp_path, older):
    other = tmp_path / "t.json"
    other.write_text("x" * 999)
    with pytest.raises(RunError, match=r"t\.json: exists and was not begun"):
        in_chunks(range(9), 3, other, Work())
    assert other.read_text() == "x" * 999
    assert numbers(older) == list(range(6))
