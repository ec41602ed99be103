"""A run is a folder that can be killed at any moment and read by anyone while it grows.

Whole files are written beside, flushed and renamed (`files`); folders get a manifest last and count
as complete only with it (`folders`); JSON lines are appended and flushed, in chunks that are
committed whole (`lines`); what a dead process left goes away (`claims`). A command writes only
where it began or where nothing is. None of it knows what the files mean.

Glossary:
    manifest  The file of a folder that names every other one, with its size and its hash.
    chunk     A fixed number of items, in their order, that are worked on together.
    commit    A line of `<file>.chunks`, which says that a chunk is whole in the file.
    torn      Written in part, because the process was killed.
    leftover  A temporary file or folder whose process is dead.
"""

from __future__ import annotations

from exsearch.runs.claims import is_locked, locked, scratch_folder
from exsearch.runs.files import cache_folder, make_folder, refuse_link, sha256_file, written
from exsearch.runs.folders import (
    MANIFEST,
    is_complete,
    new_folder,
    read_steadily,
    refuse_other_content,
    remove_folder,
    verify_folder,
    write_atomic,
)
from exsearch.runs.lines import (
    append_jsonl,
    committed,
    companion,
    finite,
    in_chunks,
    read_jsonl,
    refuse_other_file,
)

__all__ = [
    "MANIFEST",
    "append_jsonl",
    "cache_folder",
    "committed",
    "companion",
    "finite",
    "in_chunks",
    "is_complete",
    "is_locked",
    "locked",
    "make_folder",
    "new_folder",
    "read_jsonl",
    "read_steadily",
    "refuse_link",
    "refuse_other_content",
    "refuse_other_file",
    "remove_folder",
    "scratch_folder",
    "sha256_file",
    "verify_folder",
    "write_atomic",
    "written",
]
