"""A data set has a home on the web; its official files are fetched from there, checked and kept.

Addresses and hashes stand here, and no text that is read names another. What the files mean,
`formats` knows.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from exsearch.data.formats import SUMMARY, convert
from exsearch.errors import ConfigError, DataError
from exsearch.progress import Bars
from exsearch.runs import (
    cache_folder,
    locked,
    refuse_other_content,
    scratch_folder,
    sha256_file,
)

_ATTEMPTS = 5  # in a row that bring nothing
_BACKOFF = 1.0  # seconds before the second attempt; they double with each one
_TIMEOUT = 60.0  # seconds without a byte
_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Official:
    """A file as its authors publish it.

    Attributes:
        address: Where it lies.
        bytes: Its size.
        sha256: Its hash.
        members: The files that are taken out of a zip archive, by the names that they get here;
            empty where the file itself is wanted.
    """

    address: str
    bytes: int
    sha256: str
    members: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Home:
    """Where a data set comes from.

    Attributes:
        page: The page that describes it.
        licence: What its authors allow.
        files: Its files, by the names that they get here.
    """

    page: str
    licence: str
    files: Mapping[str, Official]


_HOTPOTQA = "http://curtis.ml.cmu.edu/datasets/hotpot"
_NQ = "https://raw.githubusercontent.com/google-research-datasets/natural-questions/master/nq_open"

# By the name of the format. The hashes are those that Hugging Face's `datasets` checked (HotpotQA,
# NQ), and those that several studies publish of the authors' archives (the other two).
HOMES = {
    "hotpotqa": Home(
        "https://hotpotqa.github.io",
        "CC BY-SA 4.0",
        {
            "train.json": Official(
                f"{_HOTPOTQA}/hotpot_train_v1.1.json",
                566_426_227,
                "26650cf50234ef5fb2e664ed70bbecdfd87815e6bffc257e068efea5cf7cd316",
            ),
            "dev.json": Official(
                f"{_HOTPOTQA}/hotpot_dev_distractor_v1.json",
                46_320_117,
                "4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea",
            ),
        },
    ),
    "2wikimultihopqa": Home(
        "https://github.com/Alab-NII/2wikimultihop",
        "Apache-2.0",
        {
            "data_ids_april7.zip": Official(
                "https://www.dropbox.com/s/ms2m13252h6xubs/data_ids_april7.zip?dl=1",
                258_968_175,
                "95df2bf56fdabe034e27aebc580e02264232203cf52552f9efe8a919e5529eef",
                {name: name for name in ("train.json", "dev.json", "id_aliases.json")},
            )
        },
    ),
    "musique": Home(
        "https://github.com/StonyBrookNLP/musique",
        "CC BY 4.0",
        {
            "musique_v1.0.zip": Official(
                "https://drive.usercontent.google.com/download"
                "?id=1tGdADlNjWFaHLeZZGShh2IRcpO6Lv24h&export=download&confirm=t",
                272_049_578,
                "98f839bf2fd5319f5c688aed77901a6d5c30b3b9f9f691ab9a8ecafb045ee0cd",
                {f"{part}.jsonl": f"musique_ans_v1.0_{part}.jsonl" for part in ("train", "dev")},
            )
        },
    ),
    "nq-open": Home(
        "https://github.com/google-research-datasets/natural-questions",
        "CC BY-SA 3.0",
        {
            "train.jsonl": Official(
                f"{_NQ}/NQ-open.train.jsonl",
                8_522_298,
                "0c93aaf13b12f855628489665e4ef85ffb8573ad444646f11f4fabdc57a0aabf",
            ),
            "dev.jsonl": Official(
                f"{_NQ}/NQ-open.dev.jsonl",
                391_316,
                "f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616",
            ),
        },
    ),
}


def fetch(
    name: str,
    out_folder: Path | str,
    *,
    cache: Path | None = None,
    homes: Mapping[str, Home] = HOMES,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Fetch a data set's official files, and convert them into `out_folder`, whole or not at all.

    The official files stay in the cache, so that they are fetched once. A transfer that broke off
    goes on where it stopped. A file that was put into the cache by hand serves, too: only its hash
    counts.

    Args:
        name: The name of the data set, a key of `homes`.
        out_folder: The folder to write: `train.jsonl`, `dev.jsonl`, and `corpus.jsonl` where the
            data set has passages.
        cache: The folder for the official files; None takes `data/<name>` in the user's cache.
        homes: Where data sets come from.
        bars: Opens the progress bars; None shows none.

    Returns:
        What `convert` returns, with the `page` and the `licence` of the data set.

    Raises:
        ConfigError: an unknown name, or `out_folder` holds something else.
        DataError: a file can't be fetched, is not the one that was published, or can't be read.
    """
    if name not in homes:
        raise ConfigError(f"no data set {name!r} can be fetched; there are {', '.join(homes)}")
    refuse_other_content(Path(out_folder), SUMMARY, "converted data set")
    bars, home = bars or Bars(False), homes[name]
    folder = cache or cache_folder() / "data" / name
    with locked(folder, wait=True), scratch_folder(folder) as scratch:
        sources: list[Path] = []
        for file, official in home.files.items():
            _have(official, folder / file, bars)
            taken = [_take_out(folder / file, m, scratch / n) for n, m in official.members.items()]
            sources += taken or [folder / file]
        summary = convert(name, sources, out_folder, bars=bars)
    return {**summary, "page": home.page, "licence": home.licence}


def _have(official: Official, path: Path, bars: Bars) -> None:
    """Make sure that a file of the cache is the published one; a missing one is fetched."""
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        _transfer(official, part, path, bars)
        if (found := sha256_file(part)) != official.sha256:
            part.unlink()
            raise DataError(
                f"{official.address}: not the published file: its SHA-256 is {found}; nothing was "
                f"kept. {_by_hand(official, path)}"
            )
        part.replace(path)
    elif (found := sha256_file(path)) != official.sha256:
        raise DataError(
            f"not the published file: its SHA-256 is {found} in place of {official.sha256}; remove "
            "it and run the same command again",
            file=path,
        )


def _by_hand(official: Official, path: Path) -> str:
    return (
        f"Try again later, or fetch it in another way, such as a browser, to {path} (SHA-256 "
        f"{official.sha256}) and run the same command again"
    )


def _transfer(official: Official, part: Path, path: Path, bars: Bars) -> None:
    """Fetch what is missing of a file; an attempt that brought something is followed by another.

    Raises:
        DataError: several attempts in a row brought nothing, or the server refuses.
    """
    failed, in_vain, most = "", 0, 0
    while in_vain < _ATTEMPTS:
        if in_vain:
            time.sleep(_BACKOFF * 2 ** (in_vain - 1))
        try:
            if _attempt(official, part, path.name, bars):
                return
            failed = "the transfer broke off"
        except httpx2.HTTPStatusError as error:
            failed = f"HTTP {error.response.status_code}"
            if error.response.status_code < 500 and error.response.status_code not in (408, 429):
                break
        except httpx2.HTTPError as error:
            failed = f"the transfer failed ({type(error).__name__})"
        except _Refused as error:
            failed = str(error)
            break
        size = part.stat().st_size if part.exists() else 0
        in_vain, most = (0 if size > most else in_vain + 1), max(size, most)
    raise DataError(f"{official.address}: {failed}. {_by_hand(official, path)}")


class _Refused(Exception):
    """The server answers with something else than the file, and would again."""


def _attempt(official: Official, part: Path, name: str, bars: Bars) -> bool:
    """Fetch what is missing of a file, as long as the connection lasts; whether it is whole now."""
    done = part.stat().st_size if part.exists() else 0
    if done > official.bytes:
        part.unlink()
        done = 0
    if done == official.bytes:
        return True
    asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with (
        httpx2.Client(follow_redirects=True, timeout=_TIMEOUT) as client,
        client.stream("GET", official.address, headers=asked) as reply,
    ):
        reply.raise_for_status()
        if reply.headers.get("content-type", "").startswith("text/html"):
            raise _Refused("gave a page in place of the file, as servers do at a limit")
        goes_on = reply.status_code == 206
        done = done if goes_on else 0
        with (
            part.open("ab" if goes_on else "wb") as file,
            bars.open(name, official.bytes, "B", done) as bar,
        ):
            for piece in reply.iter_raw():
                done += len(piece)
                if done > official.bytes:
                    raise _Refused(f"gave more than the {official.bytes:,} bytes of the file")
                file.write(piece)
                bar.update(len(piece))
    return done == official.bytes


def _take_out(archive: Path, member: str, path: Path) -> Path:
    """Write the file of an archive that has a name, in whatever folder it lies there."""
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [n for n in opened.namelist() if n.rpartition("/")[2] == member]
            if not found:
                raise DataError(f"has no {member}", file=archive)
            with opened.open(found[0]) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, _PIECE)
    except zipfile.BadZipFile as error:
        raise DataError(f"no archive that can be read: {error}", file=archive) from None
    return path
