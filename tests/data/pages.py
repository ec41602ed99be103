"""PDF files for tests, written from the text of their pages."""

from __future__ import annotations

import zlib


def make_pdf(*pages: str, title: str = "", packed: bytes | None = None) -> bytes:
    """A PDF with these pages, each line of a page a line of it.

    Args:
        pages: The text of each page.
        title: The title in its metadata; empty for none.
        packed: The content stream of all pages, deflated, in place of their text.
    """
    font = len(pages) * 2 + 3
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
    ]
    for number, page in enumerate(pages):
        shown = " ".join(f"({line}) Tj T*" for line in page.split("\n") if line)
        content = packed or zlib.compress(f"BT /F1 12 Tf 14 TL 72 700 Td {shown} ET".encode())
        resources = f"<< /Font << /F1 {font} 0 R >> >>"
        place = f"/MediaBox [0 0 612 792] /Contents {4 + 2 * number} 0 R"
        objects.append(f"<< /Type /Page /Parent 2 0 R {place} /Resources {resources} >>".encode())
        head = f"<< /Length {len(content)} /Filter /FlateDecode >>".encode()
        objects.append(head + b"\nstream\n" + content + b"\nendstream")
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    objects.append(f"<< /Title ({title}) >>".encode())
    data, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n" % number + text + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    info = f"/Info {len(objects)} 0 R" if title else ""
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R {info} >>".encode()
    end = b"\nstartxref\n%d\n%%%%EOF\n" % len(data)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return data + head + table + b"trailer\n" + trailer + end
