"""A disk that can't hold a run says so before the run trains."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from exsearch.training import checkpoint, drill
from exsearch.training.drill import save_drill
from exsearch.training.recipe import MStepConfig, WarmUpConfig

CPU = torch.device("cpu")
configs = pytest.mark.parametrize("config", [MStepConfig(), WarmUpConfig(lora_rank=4)])


@configs
def test_what_is_written_is_as_large_as_a_checkpoint(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: MStepConfig
) -> None:
    sizes: list[int] = []

    def save(model: Any, optimizer: Any, step: int, start: Any, folder: Path) -> None:
        checkpoint.save_training(model, optimizer, step, start, folder)
        sizes.append((folder / checkpoint.OPTIMIZER_FILE).stat().st_size)

    monkeypatch.setattr(drill, "save_training", save)
    save_drill(tiny_model_folder, config, CPU, tmp_path / ".drill")
    assert not list(tmp_path.iterdir())
    model = checkpoint.load_trainable(tiny_model_folder, config, CPU)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sizes[0] >= 8 * sum(p.numel() for p in trained)  # two moments, in float32


def test_a_full_disk(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_drill(tiny_model_folder, MStepConfig(), CPU, tmp_path / ".drill")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["model.safetensors", checkpoint.OPTIMIZER_FILE])
def test_a_disk_that_does_not_keep_what_is_written(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def save(*args: Any) -> None:
        checkpoint.save_training(*args)
        with (args[-1] / file).open("r+b") as damaged:
            damaged.seek(-9, 2)
            damaged.write(b"\xff")

    monkeypatch.setattr(drill, "save_training", save)
    with pytest.raises(OSError, match="can't be read back") as caught:
        save_drill(tiny_model_folder, MStepConfig(), CPU, tmp_path / ".drill")
    assert caught.value.errno == errno.EIO
    assert not list(tmp_path.iterdir())
