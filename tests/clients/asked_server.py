"""What clients ask: a server of the scripted engine, then one of the packaged searcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from answer_server import ANSWER, QUESTION

from exsearch.data import sample_path
from exsearch.data.corpus import read_corpus
from exsearch.retrievers.bm25 import Bm25Retriever
from started_server import StartedServer, started

# The Python whose `exsearch` runs the packaged searcher: it needs torch, which clients don't.
PYTHON = os.environ.get("EXSEARCH_SERVER_PYTHON", sys.executable)
COMMAND = (PYTHON, "-m", "exsearch", "serve", "--port", "0", "--json", "--index")


@dataclass(frozen=True)
class Asked:
    """A server, and what a client gets of it.

    Attributes:
        address: The server's address.
        model: The name of its model.
        question: The question to ask.
        answer: What is answered.
        number: The number of the source that the answer rests on.
    """

    address: str
    model: str
    question: str
    answer: str
    number: int

    @property
    def says(self) -> str:
        """How the text of the answer begins."""
        return f"{self.answer} [{self.number}]"


@pytest.fixture(scope="session", params=["scripted", "shipped"])
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    """A server that answers a question, of each kind."""
    if request.param == "scripted":
        running: StartedServer = request.getfixturevalue("server")
        yield Asked(running.address, "script.jsonl", QUESTION, ANSWER, 1)
        return
    index = tmp_path_factory.mktemp("shipped") / "index"
    Bm25Retriever.build(read_corpus([sample_path("corpus")]), index, progress=False)
    question = "To which hospital did the author of Peter Pan leave the income from the play?"
    with started([*COMMAND, index]) as running:
        yield Asked(running.address, "exsearch-smollm2-135m", question, "Great Ormond Street", 1)


def told_by_node(script: str, *arguments: str) -> Any:
    """What a script of this folder prints, as JSON, run by EXSEARCH_NODE."""
    command = [os.environ.get("EXSEARCH_NODE", "node"), str(Path(__file__).with_name(script))]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
