"""HTML and PDF files are read as title and visible text; what can't be read is one line."""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path

import pytest

from data.pages import make_pdf
from exsearch.data import document_parser
from exsearch.data.corpus import read_corpus
from exsearch.data.documents import Documents
from exsearch.errors import DataError, MissingExtraError

PAGE = """<!doctype html><html><head><title> The harbour
 of Quillmoor </title><style>p { color: red }</style><script>var x = "no";</script></head>
<body><nav><a href="/">Home</a></nav><header><h1>Quillmoor</h1></header>
<main><p>Quill<b>moor</b> is a <i>harbour</i>

town.<br>It is old &amp; small.</p><ul><li>One</li><li>Two</li></ul>
<table><tr><td>River</td><td>Sorrel</td></tr></table><p hidden>Unseen.</p>
<noscript>Turn it on.</noscript><!-- a comment --><article><footer>Kept.</footer></article></main>
<footer>Imprint</footer></body></html>"""


def read(file: Path) -> tuple[str, str]:
    with Documents() as documents:
        return documents.read(file)


def test_the_visible_text_of_a_page(tmp_path: Path):
    file = tmp_path / "a.html"
    file.write_text(PAGE)
    title, text = read(file)
    assert title == "The harbour of Quillmoor"
    assert text.split("\n\n") == [
        "Quillmoor",
        "Quillmoor is a harbour town. It is old & small.",
        "One",
        "Two",
        "River Sorrel",
        "Kept.",
    ]


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<p>Text<h2> First <b>heading</b></h2><h1>Second</h1>", "First heading"),
        ("<title> </title><p>Text", ""),
        ("<p>Text<svg><title>A drawing</title></svg>", ""),
    ],
)
def test_the_title_of_a_page(tmp_path: Path, page: str, title: str):
    file = tmp_path / "a.htm"
    file.write_text(page)
    assert read(file)[0] == title
    assert {passage.title for passage in read_corpus(file)} == {title or "a"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "iso-8859-15", "shift_jis", "utf-16"])
def test_the_encoding_of_a_page(tmp_path: Path, encoding: str):
    text = "東京" if encoding == "shift_jis" else "Café"
    file = tmp_path / "a.html"
    file.write_bytes(f'<meta charset="{encoding}"><p>{text}'.encode(encoding))
    assert read(file)[1] == text


def test_the_pages_of_a_pdf(tmp_path: Path):
    file = tmp_path / "a.pdf"
    pages = "Ada Fenn was born in Quill-\nmoor, and went", "to sea. She was Anglo-\nIrish."
    file.write_bytes(make_pdf(*pages, title="Lives"))
    assert [(p.id, p.title, p.text) for p in read_corpus(file)] == [
        (
            "a.pdf#1",
            "Lives",
            "Ada Fenn was born in Quillmoor, and went to sea. She was Anglo- Irish.",
        )
    ]
    file.write_bytes(make_pdf("Text."))
    assert [p.title for p in read_corpus(file)] == ["a"]


def encrypted(algorithm: str = "RC4-128") -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(io.BytesIO(make_pdf("Secret."))))
    writer.encrypt("word", algorithm=algorithm)
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def bomb() -> bytes:
    """The content of a page: much more than it takes in the file."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()


DAMAGED = {
    "encrypted.pdf": (encrypted, "encrypted; save it without a password"),
    "scanned.pdf": (lambda: make_pdf("", ""), "has no text; if its pages are scanned"),
    "cut.pdf": (lambda: make_pdf("Text.")[:300], r"damaged \(.*\); save it anew"),
    "empty.pdf": (lambda: b"", "damaged .*empty"),
    "bomb.pdf": (lambda: make_pdf("x", packed=bomb()), "damaged .*[Ll]imit"),
}


def test_an_unreadable_document_is_one_line(tmp_path: Path, caplog):
    """As a source it is an error; in a folder it is passed over, and the others are read."""
    for name, (make, _) in DAMAGED.items():
        (tmp_path / name).write_bytes(make())
    with Documents() as documents:
        for name, (_, said) in DAMAGED.items():
            with pytest.raises(DataError, match=rf"{name}: {said}") as caught:
                documents.read(tmp_path / name)
            assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"cut\.pdf: damaged"):
        list(read_corpus(tmp_path / "cut.pdf"))
    with pytest.raises(DataError, match="the corpus is empty"):
        list(read_corpus(tmp_path))
    caplog.clear()
    (tmp_path / "a.md").write_text("One.")
    (tmp_path / "z.html").write_text("<p>Two.")
    assert [p.text for p in read_corpus(tmp_path)] == ["One.", "Two."]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(DAMAGED)
    assert all(line.endswith(": passed over") for line in told)


@pytest.fixture
def parser(tmp_path: Path, monkeypatch) -> Path:
    """A copy of the parser with other limits, to be changed further."""
    copy = tmp_path / "parser" / "parser.py"
    copy.parent.mkdir()
    text = Path(document_parser.__file__).read_text()
    copy.write_text(text.replace("SECONDS = 120", "SECONDS = 0").replace("2 << 30", "1 << 28"))
    monkeypatch.setattr(document_parser, "__file__", str(copy))
    return copy


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are of Linux")
def test_a_document_that_takes_too_much_ends_its_process_only(tmp_path: Path, parser, caplog):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.html").write_text("<div>" * 300_000)  # takes the parser minutes
    (folder / "b.html").write_text("<p>Read.")
    (folder / "c.html").write_bytes(b"<p>" + b"x" * (100 << 20))
    (folder / "d.html").write_text("<p>Read, too.")
    assert [p.text for p in read_corpus(folder)] == ["Read.", "Read, too."]
    assert "a.html: takes more than 120 seconds to read" in caplog.text
    assert "c.html: takes more than 256 MiB of memory" in caplog.text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "import os; os.kill(os.getpid(), 11)",
            r"ended the process that read it \(exit status -11\)",
        ),
        ("return {'title': '', 'text': 'x' * 2000}", "has more than 0 MiB of text"),
    ],
)
def test_a_parser_that_fails(tmp_path: Path, parser: Path, monkeypatch, fault: str, said: str):
    monkeypatch.setattr("exsearch.data.documents.MAX_LINE", 1000)
    text = parser.read_text()
    parser.write_text(
        text.replace("    try:\n        size", f"    {fault}\n    try:\n        size")
    )
    (tmp_path / "a.html").write_text("<p>Text.")
    with Documents() as documents:
        for _ in range(2):
            with pytest.raises(DataError, match=said):
                documents.read(tmp_path / "a.html")


def test_without_the_libraries(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr("exsearch.data.documents.find_spec", lambda name: None)
    for name in ("a.pdf", "b.md"):
        (tmp_path / name).write_text("One.")
    with pytest.raises(MissingExtraError, match=r"a \.pdf file .*exsearch\[files\]"):
        list(read_corpus(tmp_path / "a.pdf"))
    assert [p.id for p in read_corpus(tmp_path)] == ["b.md#1"]
    assert "passed over 1 of other types: a.pdf (" in caplog.text
    assert "pip install 'exsearch[files]'" in caplog.text
