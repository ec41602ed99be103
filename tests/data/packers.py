"""How bytes are packed, by the ending of the file that holds them."""

from __future__ import annotations

import bz2
import gzip

import pyarrow

PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pyarrow.compress(data, "zstd", asbytes=True),
}
