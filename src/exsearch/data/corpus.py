"""A corpus is the passages that can be found, read one at a time from JSON lines or text files.

Nothing is held in memory but the ids. It does not index them (`retrievers/` does).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from exsearch.data.json_lines import SUFFIXES, Fields, check_exists, clean, read_objects
from exsearch.errors import DataError
from exsearch.records import Passage

TEXT_SUFFIXES = (".txt", ".md")
PASSAGE_WORDS = 100

_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[]?[^\W_a-z])")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


def read_corpus(sources: Sequence[Path | str]) -> Iterator[Passage]:
    r"""Stream the passages of files and folders, in their order.

    A `.jsonl` or `.jsonl.gz` file has lines of `{"id", "text"}` (or `contents` for `text`) with an
    optional `title`. A folder is searched for `.txt` and `.md` files, sorted by path; each is cut
    into passages of about 100 words with the id `relative/path.md#n`, n from 1.

    Args:
        sources: Files and folders; a single one may be given as it is.

    Raises:
        DataError: a source is missing or of another type, a line has no id or text, an id comes
            twice, or there is no passage at all.
    """
    if isinstance(sources, Path | str):
        sources = [sources]
    seen: set[str] = set()
    for source in map(Path, sources):
        for passage, line in _read_source(source):
            if passage.id in seen:
                message = f'the id "{passage.id}" came before; each passage needs an id of its own'
                raise DataError(message, file=source, line=line)
            seen.add(passage.id)
            yield passage
    if not seen:
        names = ", ".join(str(source) for source in sources) or "no source given"
        raise DataError(f"the corpus is empty ({names}): no passage to index")


def _read_source(source: Path) -> Iterator[tuple[Passage, int | None]]:
    """The passages of one source, each with its line; None where a source has no lines."""
    check_exists(source, "corpus")
    if source.is_dir():
        for file in _text_files(source):
            name = file.relative_to(source).as_posix()
            yield from ((passage, None) for passage in _read_text_file(file, name))
    elif source.name.endswith(SUFFIXES):
        for number, values in read_objects(source, "corpus"):
            yield _passage(Fields(values, source, number)), number
    elif source.suffix.lower() in TEXT_SUFFIXES:
        yield from ((passage, None) for passage in _read_text_file(source, source.name))
    else:
        known = ", ".join(SUFFIXES + TEXT_SUFFIXES)
        raise DataError(f"unknown type of corpus, expected {known} or a folder", file=source)


def _passage(fields: Fields) -> Passage:
    name = "contents" if "text" not in fields.values and "contents" in fields.values else "text"
    title = fields.optional_text("title") or ""
    return Passage(id=fields.id(), title=title, text=fields.text(name))


def _text_files(folder: Path) -> list[Path]:
    """The text files below a folder, hidden ones left out, in an order that no machine changes."""
    files = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in TEXT_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        message = f"no {' or '.join(TEXT_SUFFIXES)} file in this folder"
        if any(folder.glob("*.jsonl*")):
            message += "; name its .jsonl file itself"
        raise DataError(message, file=folder)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _read_text_file(file: Path, name: str) -> Iterator[Passage]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        raise DataError(message, file=file) from error
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", file=file) from error
    heading = _HEADING.search(text) if file.suffix.lower() == ".md" else None
    title = heading.group(1) if heading else file.stem
    for number, piece in enumerate(split_text(text), start=1):
        yield Passage(id=f"{clean(name)}#{number}", title=title, text=piece)


def split_text(text: str, words: int = PASSAGE_WORDS) -> Iterator[str]:
    """Cut a text into pieces of at most `words` words, at the ends of paragraphs and sentences.

    A piece that is more than half full ends with its paragraph. A sentence longer than `words` is
    cut between words.

    Args:
        text: The text; blank lines end paragraphs.
        words: The most words in a piece.
    """
    piece = ""
    count = 0
    for paragraph in _PARAGRAPH_END.split(text.replace("\r\n", "\n")):
        joint = "\n"
        for sentence in _sentences(paragraph, words):
            size = len(sentence.split())
            if piece and count + size > words:
                yield piece
                piece, count = "", 0
            piece = f"{piece}{joint}{sentence}" if piece else sentence
            count += size
            joint = " "
        if count > words // 2:
            yield piece
            piece, count = "", 0
    if piece:
        yield piece


def _sentences(paragraph: str, words: int) -> Iterable[str]:
    for sentence in _SENTENCE_END.split(paragraph):
        parts = sentence.split()
        for start in range(0, len(parts), words):
            yield " ".join(parts[start : start + words])
