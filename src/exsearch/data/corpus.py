"""A corpus is the passages that can be found, read one at a time from lines, tables or texts.

Nothing is held in memory but the ids. It does not index them (`retrievers/` does).
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from exsearch.data.documents import DOCUMENTS, Documents, readable
from exsearch.data.json_lines import Fields, clean, read_objects
from exsearch.data.sources import check_exists, plain_name
from exsearch.data.tables import PARQUET, TABLES, TEXT_TABLES, read_rows
from exsearch.errors import DataError
from exsearch.records import Passage, split_contents

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst")
PASSAGE_WORDS = 100

_PARAGRAPH_END = re.compile(r"\n\s*\n")
# Of scripts without blanks between sentences, for a class of a regular expression.
FULL_STOPS = r"\u3002\uff01\uff1f\uff61\u104b\u17d4\u0f0d"
_CLOSE, _OPEN = r"\u300d\u300f\u201d\u2019\uff09\u3011", r"\u300c\u300e\u201c\u2018\uff08\u3010"
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[]?[^\W_a-z])"
    rf"|(?:(?<=[{FULL_STOPS}])|(?<=[{FULL_STOPS}][{_CLOSE}]))\s*(?=[{_OPEN}]?\w)"
)
_UNSPACED_END = re.compile(rf"[{FULL_STOPS}][{_CLOSE}]?$")
# Han, kana, Thai, Lao, Tibetan, Burmese, Khmer: written without blanks between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
_UNSPACED_LETTERS, _LETTERS = 3, 100  # that count as a word
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_UNDERLINED = re.compile(r"^(\S.*)\n([^\w\s])\2{2,}[ \t]*$", re.MULTILINE)
_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_FIELDS = ("id", "_id", "title", "text", "contents", "url")
_NAMED = 3  # of the files that are passed over


def read_corpus(sources: Sequence[Path | str]) -> Iterator[Passage]:
    r"""Stream the passages of files and folders, in their order.

    A `.jsonl` file has lines of `{"id", "text"}` (or `_id`, and `contents` for `text`) with an
    optional `title` and `url`; a `.csv` or `.tsv` file has these names in its first line, a
    `.parquet` file has columns of these names. Lines and tables of text may be packed (`PACKED`).
    A folder is searched for texts (`TEXT_SUFFIXES`) and documents (`DOCUMENTS`), sorted by path; a
    warning names what else is there, and each document that can't be read. Each text is cut into
    passages of about 100 words with the id `relative/path.md#n`, n from 1; folders stand before the
    path where two sources have the same one. Passages come as they are, also blank ones; those are
    left out when an index is built. A `url` that is no plain http or https address is left out; a
    warning counts them.

    Args:
        sources: Files and folders; a single one may be given as it is.

    Raises:
        DataError: a source is missing or of another type, a line has no id or text, an id comes
            twice, there is no passage at all, or a document that is a source can't be read.
        MissingExtraError: a document or Parquet file that is a source, without the extra `files`.
    """
    places = list(map(Path, [sources] if isinstance(sources, Path | str) else sources))
    texts = {place: text_files(place) for place in places}
    names = _names(texts)
    seen: set[str] = set()
    for source in places:
        for passage, line in _read_source(source, {file: names[file] for file in texts[source]}):
            if passage.id in seen:
                message = f'the id "{passage.id}" came before; each passage needs an id of its own'
                raise DataError(message, file=source, line=line)
            seen.add(passage.id)
            yield passage
    if not seen:
        given = ", ".join(map(str, places)) or "no source given"
        raise DataError(f"the corpus is empty ({given}): no passage to index")


def _read_source(source: Path, texts: dict[Path, str]) -> Iterator[tuple[Passage, int | None]]:
    """The passages of one source, each with its line; None where a source has no lines."""
    with Documents() as documents:
        for file, name in texts.items():
            try:
                passages = read_text(file, name, documents)
            except DataError as error:
                if file == source or file.suffix.lower() not in DOCUMENTS:
                    raise
                logger.warning("%s: passed over", error)
                continue
            yield from ((passage, None) for passage in passages)
    if not texts:
        table = plain_name(source).endswith(TABLES)
        read = read_rows(source, "corpus", "text", only=_FIELDS) if table else None
        lacking, first = 0, 0
        for number, values in read or read_objects(source, "corpus"):
            passage = _passage(Fields(values, source, number))
            if values.get("url") and not passage.url:
                lacking, first = lacking + 1, first or number
            yield passage, number
        if lacking:
            said = "%s: `url` is no plain http or https address in %d lines, the first is line %d"
            logger.warning(f"{said}; it is left out there", source, lacking, first)


def _passage(fields: Fields) -> Passage:
    name = "contents" if "text" not in fields.values and "contents" in fields.values else "text"
    title = fields.optional_text("title") or ""
    blank = name in fields.values and fields.values[name] is None
    text = "" if blank else fields.text(name, blank=True)
    if name == "contents" and not title:
        title, text = split_contents(text)
    return Passage(id=fields.id(), title=title, text=text, url=fields.values.get("url") or "")


def text_files(source: Path) -> list[Path]:
    """The texts and documents of a source, hidden ones left out, in the order of their paths.

    Args:
        source: A folder, which has them, a text, which is itself one, or a file of passages, which
            has none.

    Raises:
        DataError: it is missing, of another type, or a folder without any.
    """
    check_exists(source, "corpus")
    if not source.is_dir():
        if source.suffix.lower() in (*TEXT_SUFFIXES, *DOCUMENTS):
            return [source]
        name = plain_name(source)
        if name.endswith((".jsonl", *TEXT_TABLES)) or source.suffix == PARQUET:
            return []
        known = ", ".join((".jsonl", *TABLES, *TEXT_SUFFIXES, *DOCUMENTS))
        raise DataError(f"unknown type of corpus, expected {known} or a folder", file=source)
    suffixes = (*TEXT_SUFFIXES, *readable())
    texts: list[Path] = []
    others: list[str] = []
    for path in sorted(source.rglob("*"), key=lambda path: path.relative_to(source).as_posix()):
        inner = path.relative_to(source)
        if any(part.startswith(".") for part in inner.parts) or not path.is_file():
            continue
        if path.suffix.lower() in suffixes:
            texts.append(path)
        else:
            others.append(inner.as_posix())
    _tell_others(source, bool(texts), others, suffixes)
    return texts


def _tell_others(source: Path, texts: bool, others: list[str], suffixes: tuple[str, ...]) -> None:
    """Warn of the files of a folder that are no texts, or refuse it where there is nothing else."""
    more = ", …" if len(others) > _NAMED else ""
    names = f"{len(others)} of other types: {', '.join(others[:_NAMED])}{more}"
    lacking = [suffix for suffix in DOCUMENTS if suffix not in suffixes]
    if any(name.lower().endswith(tuple(lacking)) for name in others):
        names += f" ({', '.join(lacking)} need more packages: pip install 'exsearch[files]')"
    known = ", ".join(suffixes)
    if not texts:
        there = f" ({names}); name a file of passages itself" if others else ""
        raise DataError(f"no {known} file in this folder{there}", file=source)
    if others:
        logger.warning("%s: only %s are read from a folder, passed over %s", source, known, names)


def _names(texts: dict[Path, list[Path]]) -> dict[Path, str]:
    """The name of each file: its path in its source, with folders before it where two are alike."""
    parts = {f: Path(os.path.abspath(f)).parts for files in texts.values() for f in files}
    length = {
        file: max(1, len(file.relative_to(source).parts))
        for source, files in texts.items()
        for file in files
    }
    while True:
        names = {file: "/".join(parts[file][-n:]) for file, n in length.items()}
        times = Counter(names.values())
        alike = [f for f, name in names.items() if times[name] > 1 and length[f] < len(parts[f])]
        if not alike:
            return names
        for file in alike:
            length[file] += 1


def read_text(file: Path, name: str, documents: Documents) -> Iterator[Passage]:
    """The passages of a text or a document, which is read at once and cut as they are asked for.

    Args:
        file: The text or document.
        name: The name of it in the passages' ids.
        documents: Reads documents.

    Raises:
        DataError: the file can't be read.
    """
    suffix = file.suffix.lower()
    if suffix in DOCUMENTS:
        title, text = documents.read(file)
    else:
        text = _decoded(file)
        title = _heading(text, suffix)
    return (
        Passage(id=f"{clean(name)}#{number}", title=clean(title or file.stem), text=clean(piece))
        for number, piece in enumerate(split_text(text), start=1)
    )


def _decoded(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        raise DataError(message, file=file) from error
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", file=file) from error


def _heading(text: str, suffix: str) -> str | None:
    """The first heading of a text in Markdown or reStructuredText; None where it has none."""
    text = text.replace("\r\n", "\n")
    if suffix == ".rst":
        found = _UNDERLINED.search(text)
    else:
        found = _HEADING.search(_FENCED.sub("", text)) if suffix != ".txt" else None
    return found[1].strip() if found else None


def split_text(text: str, words: int = PASSAGE_WORDS) -> Iterator[str]:
    """Cut a text into pieces of at most `words` words, at the ends of paragraphs and sentences.

    A piece that is more than half full ends with its paragraph. A sentence longer than `words` is
    cut between words, and within what has no blanks. Words are counted by `count_words`.

    Args:
        text: The text; blank lines end paragraphs.
        words: The most words in a piece.
    """
    piece = ""
    for paragraph in _PARAGRAPH_END.split(text.replace("\r\n", "\n")):
        joint = "\n" if piece else ""
        for sentence in _SENTENCE_END.split(paragraph):
            for part in _parts(sentence, words):
                longer = f"{piece}{joint}{part}"
                if piece and count_words(longer) > words:
                    yield piece
                    longer = part
                piece, joint = longer, " "
            joint = "" if _UNSPACED_END.search(piece) else joint
        if count_words(piece) > words // 2:
            yield piece
            piece = ""
    if piece:
        yield piece


def count_words(text: str) -> int:
    """The number of words; of what has no blanks, some letters count as one.

    These are 3 letters of a script that is written without blanks, and 100 of any other.
    """
    return sum(map(_count, text.split()))


def _count(part: str) -> int:
    return max(1, len(_UNSPACED.findall(part)) // _UNSPACED_LETTERS, len(part) // _LETTERS)


def _parts(sentence: str, words: int) -> Iterator[str]:
    """A sentence in parts of at most `words` words."""
    line: list[str] = []
    count = 0
    for part in sentence.split():
        *full, rest = _slices(part, words)
        if line and (full or count + _count(rest) > words):
            yield " ".join(line)
            line, count = [], 0
        yield from full
        line.append(rest)
        count += _count(rest)
    if line:
        yield " ".join(line)


def _slices(part: str, words: int) -> list[str]:
    """What has no blanks, cut where it is longer than `words` words."""
    if _count(part) <= words:
        return [part]
    unspaced = len(_UNSPACED.findall(part)) // _UNSPACED_LETTERS > words
    size = words * (_UNSPACED_LETTERS if unspaced else _LETTERS)
    return [part[start : start + size] for start in range(0, len(part), size)]
