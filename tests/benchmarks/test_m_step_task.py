"""Both rivals of the M-step get the same sequences, and our gradient is taken without a step."""

from __future__ import annotations

import json

import torch
from benchmarks.m_step import Task, equal, options, worker
from benchmarks.workload import SAMPLE, workload
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from exsearch.training.batches import training_sequences
from exsearch.training.e_step import weigh


def test_the_gradient_of_equal_weights_is_that_of_the_mean_loss(
    tiny_engine, tiny_model_folder, tmp_path
):
    work = workload(SAMPLE, 2, tmp_path, tiny_engine.tokenizer)
    weighted = weigh([t for t in work.trajectories if t.sample == 0], tiny_engine)
    task = Task.write([equal(item) for item in weighted], "task", tmp_path)
    rows = [json.loads(line) for line in task.sequences.read_text().splitlines()]
    assert task.questions == 2
    assert task.tokens == sum(len(row["input_ids"]) for row in rows)
    sequences = [s for item in weighted for s in training_sequences(equal(item))]
    assert [sum(row["completion_mask"]) for row in rows] == [s.targets for s in sequences]

    file = tmp_path / "gradient.safetensors"
    command = ["--model", str(tiny_model_folder), "--worker", str(task.items)]
    worker(options().parse_args([*command, "--gradient", str(file)]))
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    count = sum(sum(row["completion_mask"]) for row in rows)
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        labels = torch.where(torch.tensor([row["completion_mask"]]) == 1, ids, -100)
        model(input_ids=ids, labels=labels, num_items_in_batch=count).loss.backward()
    for name, gradient in load_file(file).items():
        expected = model.get_parameter(name).grad
        assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-6), name
