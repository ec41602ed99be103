"""A file or a folder takes its place whole, and stands up to being altered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from exsearch.errors import ConfigError, IndexDamagedError, RunError
from exsearch.runs import (
    MANIFEST,
    folders,
    is_complete,
    new_folder,
    read_steadily,
    refuse_other_content,
    sha256_file,
    verify_folder,
    write_atomic,
)


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


@pytest.fixture
def no_exchange(monkeypatch):
    """A system that can't let two folders change places in one step."""
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)


def test_without_the_one_step_a_folder_is_replaced_whole_too(tmp_path, no_exchange):
    test_a_folder_is_replaced_whole(tmp_path)


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch, no_exchange):
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
        '{"files": {"' + "a" * 5000 + '": {"bytes": 1, "sha256": ""}}}',
        '{"files": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_manifest_is_damage(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json: damaged \(.*\); x"):
        verify_folder(folder, remedy="x")


def test_a_manifest_that_is_not_text_is_damage(folder):
    (folder / MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="damaged"):
        verify_folder(folder)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_between_the_steps_the_old_folder_or_the_new_is_found(
    tmp_path, monkeypatch, no_exchange, number
):
    path = tmp_path / "index"
    fill(path, a="old")
    rename, times = Path.rename, []

    def die(self, target):
        rename(self, target)
        times.append(target)
        if len(times) == number:
            os._exit(9)

    child = os.fork()
    if not child:
        monkeypatch.setattr(Path, "rename", die)
        fill(path, a="new")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.exists() == (number > 1)
    assert is_complete(path)
    verify_folder(path)
    assert (path / "a").read_text() == ("old" if number == 1 else "new")
    fill(path, a="newest")
    assert names(tmp_path) == ["index"]


def test_the_system_lets_two_folders_change_places(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if folders._exchange(tmp_path / "one", tmp_path / "other"):
        assert (names(tmp_path / "one"), names(tmp_path / "other")) == (["other"], ["one"])
    with pytest.raises(OSError, match="No such file"):
        folders._exchange(tmp_path / "one", tmp_path / "none")


@pytest.mark.parametrize("one_step", [True, False])
def test_a_reader_never_fails_and_writers_do_not_break_one_another(tmp_path, monkeypatch, one_step):
    if not one_step:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    path = tmp_path / "index"
    fill(path, a="0", b="0")

    def read():
        verify_folder(path)
        return (path / "a").read_text(), (path / "b").read_text()

    writers = []
    for writer in range(2):
        writers.append(os.fork())
        if not writers[-1]:
            code = 1
            try:
                for n in range(60):
                    fill(path, a=f"{writer}.{n}", b=f"{writer}.{n}")
                code = 0
            finally:
                os._exit(code)
    alive, seen = list(writers), set()
    while alive:
        first, second = read_steadily(path, read)
        assert first == second
        seen.add(first)
        ended, code = os.waitpid(-1, os.WNOHANG)
        if ended:
            alive.remove(ended)
            assert code == 0
    assert len(seen) > 5
    assert names(tmp_path) == ["index"]


def test_a_folder_takes_the_place_of_its_own_kind_only(tmp_path):
    fill(tmp_path / "index", mark="1", a="x")
    (tmp_path / "empty").mkdir()
    for name in ("index", "empty", "none"):
        refuse_other_content(tmp_path / name, "mark", "index")
    fill(tmp_path / "model", a="1")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "mark").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "index")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    fill(tmp_path / "damaged", mark="1")
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    for name in ("model", "thesis", "file", "link", "dangling", "damaged"):
        with pytest.raises(ConfigError, match=f"{name} exists and is no index; name another"):
            refuse_other_content(tmp_path / name, "mark", "index")
    (tmp_path / "index" / "sub").mkdir()
    (tmp_path / "index" / "sub" / "notes").touch()
    with pytest.raises(ConfigError, match=r"holds a file that is not the index's: .*/sub/notes"):
        refuse_other_content(tmp_path / "index", "mark", "index")


def test_a_link_is_not_followed_for_writing(tmp_path):
    fill(tmp_path / "index", a="old")
    (tmp_path / "link").symlink_to(tmp_path / "index")
    with pytest.raises(RunError, match="link: a link"):
        fill(tmp_path / "link", a="new")
    (tmp_path / "file").write_text("old")
    with pytest.raises(RunError, match="file: a file, where a folder is to be written"):
        fill(tmp_path / "file", a="new")
    (tmp_path / "link.json").symlink_to(tmp_path / "file")
    write_atomic(tmp_path / "link.json", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "index" / "a").read_text() == "old"
    assert (tmp_path / "link.json").read_text() == "new"
