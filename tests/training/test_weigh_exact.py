"""Weights equal brute force, whatever the samples were drawn from, with the default settings."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from exsearch.agent.episode import answer_ids
from exsearch.agent.rollout import rollout
from exsearch.agent.shown import shown_passages
from exsearch.engines.base import GREEDY, Sampling
from exsearch.engines.local.engine import TransformersEngine
from exsearch.methods.base import Answer, Ask, Look, Malformed, Method, Plan
from exsearch.methods.searcher import SearcherMethod
from exsearch.records import (
    CallKind,
    Passage,
    Question,
    Step,
    Trajectory,
    WeightedTrajectory,
    from_json,
    to_json,
)
from exsearch.training.e_step import EStepConfig, weigh
from exsearch.training.figures import e_step_figures
from exsearch.trajectories import WeightedFile, by_question, read_trajectories
from steered import GOES_ON, Steered

K = 4
ANSWERS = ("the villa", "it")
QUESTIONS = [Question(f"q{n}", f"What is fact {n}?", ANSWERS) for n in range(8)]
HINT = "(The answer is the villa.)"
PROPOSALS = [
    Sampling(0.5),
    Sampling(),
    Sampling(1.3),
    Sampling(top_p=0.9),
    Sampling(0.7, top_p=0.9),
]


class Facts:
    """Gives one passage a query."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [[Passage(q, "", f"{q} is so.")][:k] for q in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        raise NotImplementedError

    def identity(self) -> str:
        return "facts"


# --- samples ---

STARTS = {
    "assistant\nAnswer:": [f" {GOES_ON}"],
    "Copy the fact": ["[1] it is so", "Nothing found.", f"[1] it{GOES_ON}"],
    "\n1. ": [f"Answer: it{GOES_ON}", "Answer: the town", f"Search:{GOES_ON}", "Answer: no"],
    "Look facts up": [f"Search: a{GOES_ON}", "Search: one fact", f"Search:{GOES_ON}"],
}
METHOD = SearcherMethod(max_steps=2, passages=1, passage_words=8)


@dataclasses.dataclass(frozen=True)
class AnyWords:
    """Takes whatever a model writes, so that one without training can be drawn from freely.

    Its first reply is a query; the second one thinks up to the first blank, then answers.
    """

    name: ClassVar[str] = "any-words"

    hint: str = ""

    def plan(self, question: Question, steps: list[Step]) -> Plan:
        query = yield self._ask(question.question, lambda text: text.strip() or Malformed("empty"))
        found = yield Look(query, 1)
        steps.append(Step(query, found))
        return (yield self._ask(f"{question.question}\n{found[0].text}", read_answer))

    def _ask(self, prompt: str, parse: Any) -> Ask:
        return Ask(CallKind.THINK, prompt, parse, max_tokens=40, hint=self.hint)


def read_answer(text: str) -> Answer | Malformed:
    # Tokens have blanks at their beginnings alone, so none straddles this place.
    start = text.find(" ", 1)
    return Answer(text[start:], start) if start > 0 else Malformed("no_blank")


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Path) -> TransformersEngine:
    """The tiny model, with so many end tokens that its replies come to an end."""
    engine = TransformersEngine(tiny_model_folder, device="cpu")
    texts = [text.removesuffix(GOES_ON) for texts in STARTS.values() for text in texts]
    kept = {token for text in texts for token in engine.tokenizer.encode(text)}
    engine.stop_ids |= set(range(0, engine.model.config.vocab_size, 7)) - kept
    return engine


def sample(engine: Any, method: Method, sampling: Sampling, **options: Any) -> list[Trajectory]:
    return rollout(
        QUESTIONS, engine, Facts(), samples=K, method=method, sampling=sampling, seed=1, **options
    )


# --- brute force ---


@pytest.fixture(scope="module")
def exact_model(engine: TransformersEngine) -> Any:
    return copy.deepcopy(engine.model).double()


def log_probs(
    model: Any, prompt: Sequence[int], output: Sequence[int], sampling: Sampling
) -> list[float]:
    """Log-probs of the output's tokens: one plain pass, then softmax and nucleus token by token."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *output]])).logits[0].numpy()
    found = []
    for n, token in enumerate(output):
        scores = logits[len(prompt) + n - 1] / sampling.temperature
        p = np.exp(scores - scores.max())
        p /= p.sum()
        if sampling.top_p < 1:
            # A token stays while those likelier than it have less than top_p together.
            order = np.argsort(-p)
            dropped = order[np.cumsum(p[order]) - p[order] >= sampling.top_p]
            p[dropped] = 0
            p /= p.sum()
        found.append(math.log(p[token]))
    return found


def seen_prompts(t: Trajectory, method: Method, tokenizer: Any) -> list[tuple[int, ...]]:
    """What the model saw at each call: the plan's words and its hint, gone through once more."""
    steps: list[Step] = []
    plan, prompts = method.plan(t.question, steps), []
    move: Any = next(plan)
    for number, call in enumerate(t.calls):
        while isinstance(move, Look):
            (found,) = Facts().search([move.query], move.k)
            move = plan.send(tuple(p for p, _ in shown_passages(found, move, tokenizer)))
        words = f"{move.prompt}\n{move.hint}" if move.hint else move.prompt
        ids = tokenizer.encode_chat([{"role": "user", "content": words}])
        prompts.append((*ids, *tokenizer.encode(move.forced)))
        if number + 1 < len(t.calls):
            move = plan.send(move.parse(tokenizer.decode(call.output_ids)))
    return prompts


def brute_force(
    group: Sequence[Trajectory], model: Any, method: Method, tokenizer: Any, sampling: Sampling
) -> list[float]:
    """w_k, proportional to exp(a_k) p(z_k|x)/q(z_k|x), over one question's samples."""
    logs = []
    for t in group:
        if t.answer_start is None:
            logs.append(-math.inf)
            continue
        last, start = t.calls[-1], t.answer_start
        prompt = (*last.prompt_ids, *last.output_ids[:start])
        a = [
            sum(log_probs(model, prompt, answer_ids(answer, tokenizer), Sampling()))
            for answer in ANSWERS
        ]
        log = float(np.logaddexp.reduce(a))
        for call, seen in zip(t.calls, seen_prompts(t, method, tokenizer), strict=True):
            z = call.output_ids[:start] if call is last else call.output_ids
            log += sum(log_probs(model, call.prompt_ids, z, Sampling()))
            log -= sum(log_probs(model, seen, z, sampling))
        logs.append(log)
    if max(logs) == -math.inf:
        return [0.0] * len(logs)
    parts = np.exp(np.array(logs) - max(logs))
    return list(parts / parts.sum())


def check_weights(
    trajectories: Sequence[Trajectory],
    engine: Any,
    model: Any,
    method: Method,
    sampling: Sampling,
) -> None:
    items = weigh(trajectories, engine, EStepConfig())
    assert len(items) == K * len(QUESTIONS)
    compared = 0
    for group in by_question(items):
        found = [item.weight for item in group]
        samples = [item.trajectory for item in group]
        expected = brute_force(samples, model, method, engine.tokenizer, sampling)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-13)
        compared += sum(w > 1e-9 for w in expected) > 1
    assert compared >= 4  # questions of which several samples have a share


@pytest.mark.parametrize("sampling", PROPOSALS, ids=str)
@pytest.mark.parametrize("hint", ["", HINT], ids=["plain", "hinted"])
def test_weights_of_what_an_untrained_model_writes(
    engine: TransformersEngine, exact_model: Any, sampling: Sampling, hint: str
):
    method = AnyWords(hint)
    trajectories = sample(engine, method, sampling)
    assert sum(t.answer_start is not None for t in trajectories) > len(trajectories) / 3
    check_weights(trajectories, engine, exact_model, method, sampling)
    exact_without = all(t.drawn_from_model for t in trajectories)
    assert exact_without == (sampling.is_model and not hint)


@pytest.mark.parametrize("sampling", PROPOSALS[:3], ids=str)
def test_weights_of_the_searcher(engine: TransformersEngine, exact_model: Any, sampling: Sampling):
    """The model begins each reply as the format asks, and goes on by itself with some of them."""
    steered = Steered(engine, STARTS)
    trajectories = sample(steered, METHOD, sampling)
    assert {len(t.steps) for t in trajectories if t.answer} == {1, 2}
    assert {t.answer_start for t in trajectories if t.answer} >= {0, 2}
    check_weights(trajectories, steered, exact_model, METHOD, sampling)


def test_what_is_configured_does_not_count_where_the_samples_say_what_they_are(
    engine: TransformersEngine, exact_model: Any
):
    """Samples of another temperature than the E-step's own, as from a file, weigh the same."""
    trajectories = sample(engine, AnyWords(), Sampling(0.5))
    weights = [
        [item.weight for item in weigh(trajectories, engine, EStepConfig(temperature=temperature))]
        for temperature in (0.5, 1.0, 1.3)
    ]
    assert weights[0] == weights[1] == weights[2]


# --- whether they are exact ---


def said_exact(
    engine: Any,
    sampling: Sampling,
    *,
    corrected: bool = True,
    hint: str = "",
    retry_malformed: bool = False,
) -> bool:
    method = AnyWords(hint)
    trajectories = sample(engine, method, sampling, retry_malformed=retry_malformed)
    assert any(t.retries for t in trajectories) == retry_malformed
    config = EStepConfig(proposal_correction=corrected)
    return e_step_figures(weigh(trajectories, engine, config), config)["weights_exact"]


def test_figures_say_whether_weights_are_exact(engine: TransformersEngine):
    assert said_exact(engine, Sampling())
    assert said_exact(engine, Sampling(), corrected=False)  # nothing is to be corrected
    assert said_exact(engine, Sampling(0.5))
    assert said_exact(engine, Sampling(), hint=HINT)
    assert not said_exact(engine, Sampling(0.5), corrected=False)
    assert not said_exact(engine, Sampling(), hint=HINT, corrected=False)
    assert not said_exact(engine, Sampling(top_p=0.9))
    assert not said_exact(engine, Sampling(top_p=0.9), corrected=False)
    assert not said_exact(engine, Sampling(), retry_malformed=True)
    assert not said_exact(engine, GREEDY)


def test_one_sample_that_is_not_exact_is_enough(engine: TransformersEngine):
    trajectories = sample(engine, AnyWords(), Sampling(0.5))
    trajectories[5] = dataclasses.replace(trajectories[5], retries=1)
    assert not e_step_figures(weigh(trajectories, engine), EStepConfig())["weights_exact"]


# --- files of before ---


def as_version_1(record: Trajectory | WeightedTrajectory) -> str:
    """The line as it was written before methods had names."""
    fields = json.loads(to_json(record))
    assert fields["schema_version"] == 2
    inner = fields.get("trajectory", fields)
    del inner["method"], inner["truncated_sampling"]
    return json.dumps({**fields, "schema_version": 1}) + "\n"


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.5)], ids=str)
def test_a_file_of_schema_version_1_weighs_as_before(
    engine: TransformersEngine, exact_model: Any, sampling: Sampling, tmp_path: Path
):
    steered = Steered(engine, STARTS)
    trajectories = sample(steered, METHOD, sampling)
    items = weigh(trajectories, engine)
    file = tmp_path / "trajectories.jsonl"
    file.write_text("".join(map(as_version_1, trajectories)))
    read = list(read_trajectories(file))
    assert read == trajectories  # the searcher's, and not truncated, as all were then
    assert weigh(read, engine) == items
    check_weights(read, engine, exact_model, METHOD, sampling)

    weighted = tmp_path / "weighted.jsonl"
    weighted.write_text("".join(map(as_version_1, items)))
    assert list(WeightedFile(weighted)) == items
    figures = e_step_figures(WeightedFile(weighted), EStepConfig())
    assert figures["weights_exact"]
    assert from_json(WeightedTrajectory, as_version_1(items[0])).trajectory.method == "searcher"
