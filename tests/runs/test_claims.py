"""What dead processes left goes away; what living ones hold stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from exsearch.errors import RunError
from exsearch.runs import locked, new_folder, scratch_folder


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def fill(path, **files):
    with new_folder(path) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


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
    (tmp_path / ".index.1.tmp").mkdir()  # as older versions named it
    (tmp_path / ".index.notes.tmp").touch()  # nobody's of ours
    fill(path, a="whole")
    assert names(tmp_path) == [".index-2.1.tmp", ".index.notes.tmp", "index"]


def test_what_a_live_process_is_writing_is_left_alone(tmp_path):
    path = tmp_path / "index"
    with new_folder(path) as mine:
        other = mine.rename(tmp_path / f".index.{os.getpid() + 1}.tmp")
        fill(path, a="theirs")
        assert other.is_dir()
        other.rename(mine)
    assert names(tmp_path) == ["index"]


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


def test_who_holds_a_run_removes_what_dead_processes_left_in_it(tmp_path):
    run, mine = tmp_path / "run", "0" * 16
    (run / "deep").mkdir(parents=True)
    left = [run / f".a.json.{mine}.tmp", run / "deep" / f".model.{mine}.tmp", run / ".b.123.tmp"]
    left[0].touch()
    left[1].mkdir()
    (left[1] / "weights").touch()
    left[2].touch()
    (run / ".b.mine.tmp").touch()
    (run / "deep" / f".moved.{mine}.old").mkdir()
    with scratch_folder(run / "deep" / "live") as live, locked(run):
        assert live.is_dir()
    assert names(run) == [".b.mine.tmp", ".lock", "deep"]
    assert names(run / "deep") == ["moved"]  # had moved aside, and nothing came in its place
    for file in ("t.jsonl", "u.jsonl"):
        (run / f".{file}.settings.json.{mine}.tmp").touch()
    with locked(run, "t.jsonl"):
        assert names(run) == [
            ".b.mine.tmp", ".lock", ".t.jsonl.lock", f".u.jsonl.settings.json.{mine}.tmp", "deep",
        ]  # fmt: skip


def test_a_lock_is_no_way_to_empty_a_file_elsewhere(tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(RunError, match=r"run/\.lock: a link"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_a_scratch_folder_goes_with_its_block_and_after_a_kill(tmp_path):
    code = "import os, pathlib, sys; from exsearch.runs import scratch_folder\n"
    code += "with scratch_folder(pathlib.Path(sys.argv[1])): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "merged")]).returncode == 9
    assert len(names(tmp_path)) == 1
    with scratch_folder(tmp_path / "merged") as folder:
        assert names(tmp_path) == [folder.name]
        assert folder.stat().st_mode & 0o77 == 0
    with pytest.raises(KeyError), scratch_folder(tmp_path / "merged"):
        raise KeyError
    assert names(tmp_path) == []
