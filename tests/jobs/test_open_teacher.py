"""A teacher is told that it teaches, unless it was trained to be told something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chat_server import FakeServer
from exsearch.engines.base import GREEDY, Request
from exsearch.engines.local.engine import TransformersEngine
from exsearch.engines.scripted import ScriptedEngine
from exsearch.errors import ConfigError
from exsearch.jobs.teacher import SYSTEM_MESSAGE, open_teacher
from exsearch.models.settings import ModelSettings, write_model_settings
from exsearch.training.recipe import TeacherConfig


def test_a_service(server: FakeServer) -> None:
    server.script = lambda body: "Answer: x"
    engine = open_teacher(TeacherConfig(server.url, "wise", max_tokens=7))
    asked = engine.tokenizer.encode_chat([{"role": "user", "content": "Who?"}])
    engine.generate([Request(asked, 64)], GREEDY)
    (body,) = server.bodies
    system = {"role": "system", "content": SYSTEM_MESSAGE}
    assert body["messages"] == [system, {"role": "user", "content": "Who?"}]
    assert (body["model"], body["max_tokens"]) == ("wise", 7)


def test_a_script(tmp_path: Path) -> None:
    file = tmp_path / "script.jsonl"
    file.write_text('{"contains": "Who", "reply": "x"}\n')
    assert isinstance(
        open_teacher(TeacherConfig(model=str(file), engine="scripted")), ScriptedEngine
    )


@pytest.mark.parametrize(("prompt", "told"), [(None, SYSTEM_MESSAGE), ("Be brief.", "Be brief.")])
def test_a_model_that_runs_here(
    tiny_model_folder: Path, tmp_path: Path, prompt: str | None, told: str
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    write_model_settings(ModelSettings(system_prompt=prompt), folder)
    teacher = TeacherConfig(model=str(folder), engine="transformers", device="cpu", concurrency=3)
    engine = open_teacher(teacher)
    assert isinstance(engine, TransformersEngine)
    assert engine.rows == 3
    asked = engine.tokenizer.encode_chat([{"role": "user", "content": "Who?"}])
    text = engine.tokenizer.decode(asked)
    assert text.index(told) < text.index("Who?")
    assert (SYSTEM_MESSAGE in text) == (prompt is None)


def test_what_a_teacher_needs() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.base_url must be http"):
        TeacherConfig(model="wise")
    with pytest.raises(ConfigError, match=r"teacher\.model is missing"):
        TeacherConfig(engine="transformers")
