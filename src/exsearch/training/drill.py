"""A save drill is a training checkpoint that is written, verified, read back and removed.

Done before a run trains, it has a disk that is full or fails show at once, and not when there is
something to lose. It trains nothing.
"""

from __future__ import annotations

import errno
from pathlib import Path

import torch

from exsearch.errors import ExSearchError
from exsearch.runs import remove_folder, verify_folder
from exsearch.training.checkpoint import load_trainable, load_training, save_training
from exsearch.training.m_step import new_optimizer
from exsearch.training.recipe import MStepConfig


def save_drill(start: str | Path, config: MStepConfig, device: torch.device, folder: Path) -> None:
    """Write a training checkpoint as large as it will be, read it back, and remove it.

    Args:
        start: The folder or id of the model that is to be trained.
        config: How it is to be trained.
        device: The device that it is to be trained on.
        folder: The folder to write, which is not there afterwards.

    Raises:
        OSError: the disk is full, or does not keep what is written to it.
    """
    model = load_trainable(start, config, device)
    optimizer = new_optimizer(model, config)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()  # over nothing: its state is then as large as it will be
    optimizer.zero_grad()
    try:
        save_training(model, optimizer, 0, start, folder)
        del model
        optimizer.state.clear()  # both at once would take more memory than training does
        verify_folder(folder)
        load_training(optimizer, folder)
        load_trainable(folder, config, device)
    except ExSearchError as error:
        message = f"what was written can't be read back ({error})"
        raise OSError(errno.EIO, message, str(folder)) from None
    finally:
        remove_folder(folder)
