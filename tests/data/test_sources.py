"""A packed file is read as its content, and one that is damaged is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from data.packers import PACKERS
from exsearch.data.json_array import read_array
from exsearch.data.json_lines import read_objects
from exsearch.data.sources import PACKED, plain_name
from exsearch.data.tables import read_table
from exsearch.errors import DataError, MissingExtraError

ROWS = [{"id": number, "text": f"{number * 7919 % 100_003}é"} for number in range(5_000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def test_every_way_of_packing_is_tried():
    assert tuple(filter(None, PACKERS)) == PACKED
    assert [plain_name(Path(f"a.tsv{packed}")) for packed in PACKERS] == ["a.tsv"] * 4


@pytest.mark.parametrize("packed", PACKERS)
def test_every_reader_unpacks(tmp_path: Path, packed: str):
    pack = PACKERS[packed]
    for name, data in {
        "a.jsonl": LINES,
        "a.json": b"\xef\xbb\xbf " + json.dumps(ROWS).encode(),
        "a.csv": b"id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in ROWS).encode(),
    }.items():
        (tmp_path / f"{name}{packed}").write_bytes(pack(data))
    assert [row for _, row in read_objects(tmp_path / f"a.jsonl{packed}", "file")] == ROWS
    assert [row for _, row in read_array(tmp_path / f"a.json{packed}", "file")] == ROWS
    table = read_table(tmp_path / f"a.csv{packed}", "file", "id")
    assert [{**row, "id": int(row["id"])} for _, row in table] == ROWS


@pytest.mark.parametrize("packed", PACKED)
def test_parts_that_were_packed_apart_are_one(tmp_path: Path, packed: str):
    path = tmp_path / f"a.jsonl{packed}"
    path.write_bytes(PACKERS[packed](LINES) * 2)
    assert [row for _, row in read_objects(path, "file")] == ROWS * 2


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("damage", ["cut", "altered", "plain"])
def test_a_damaged_packed_file_is_refused(tmp_path: Path, packed: str, damage: str):
    """Also one that is cut off: without its end it would be a smaller file."""
    data = PACKERS[packed](LINES)
    middle = len(data) // 2
    flipped = bytes(byte ^ 0xFF for byte in data[middle : middle + 9])
    path = tmp_path / f"a.jsonl{packed}"
    path.write_bytes(
        {
            "cut": data[:-20],
            "altered": data[:middle] + flipped + data[middle + 9 :],
            "plain": LINES,
        }[damage]
    )
    with pytest.raises(DataError, match=rf"a\.jsonl{packed}:( damaged {packed[1:]} file|\d+: )"):
        list(read_objects(path, "file"))


def test_zst_without_the_extra(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(PACKERS[".zst"](LINES))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"a \.zst file .*exsearch\[files\]"):
        list(read_objects(path, "file"))
