"""An evaluation answers a file of questions into a folder and scores the answers.

The figures themselves are `evaluation`'s. It trains nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exsearch.agent.events import showing
from exsearch.engines import open_engine
from exsearch.engines.base import Sampling
from exsearch.errors import DataError
from exsearch.evaluation.evaluate import CHUNK
from exsearch.evaluation.evaluate import evaluate as evaluate_questions
from exsearch.evaluation.metrics import Rules
from exsearch.jobs.inputs import (
    Asking,
    ExampleSource,
    content_hash,
    open_inputs,
    question_file,
    solved_examples,
    with_today_s_method,
)
from exsearch.jobs.provenance import ENVIRONMENT_FILE, below, refuse_others, settle
from exsearch.progress import Bars
from exsearch.runs import committed, locked
from exsearch.trajectories import TRAJECTORIES_FILE

JOB_FILE = "settings.json"  # in an evaluation's folder: what determines it


def evaluate(
    asking: Asking,
    folder: Path,
    *,
    rules: Rules = "kilt",
    temperature: float = 0.0,
    retry_malformed: bool = True,
    examples: ExampleSource | None = None,
    chunk: int = CHUNK,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Answer a file of questions into a folder and score the answers, or go on with that.

    Args:
        asking: The questions, the model, the method and the index.
        folder: The evaluation's folder.
        rules: Whose rules the metrics follow where `kilt` and `hotpotqa` differ.
        temperature: The temperature of sampling; 0 is greedy.
        retry_malformed: Sample a malformed generation once more.
        examples: The source of worked examples for an untrained model; None shows none.
        chunk: The number of questions that are answered side by side and committed as one. Fewer
            take longer, and less is done anew after a stop.
        bars: Opens the progress bar; None shows one.

    Returns:
        The figures, as `evaluation.evaluate.evaluate` gives them.

    Raises:
        RunError: the folder holds an evaluation with other settings, or something else.
        ExSearchError: whatever else stands in the way.
    """
    examples, bars = examples or ExampleSource(), bars or Bars()
    inputs = open_inputs(asking)
    unanswered = [q.id for q in inputs.questions if not q.distinct_answers]
    if unanswered:
        raise DataError(
            f'question "{unanswered[0]}" has no answer ({len(unanswered)} such): only questions '
            "with answers can be evaluated; see `exsearch rollout`",
            file=asking.questions,
        )
    settings = {
        **inputs.identity,
        "rules": rules,
        "temperature": temperature,
        "retry_malformed": retry_malformed,
        "worked_examples": examples.count
        and [examples.count, content_hash(question_file(examples.file))],
        **({} if chunk == CHUNK else {"chunk": chunk}),
    }
    refuse_others(folder / JOB_FILE, settings, below(folder))
    with locked(folder):
        done = committed(folder / TRAJECTORIES_FILE)
        settle(
            folder / JOB_FILE,
            settings,
            folder / ENVIRONMENT_FILE,
            begun=bool(done),
            today=with_today_s_method,
        )
        engine = open_engine(asking.model)
        try:
            shown = solved_examples(examples, inputs.retriever, engine, asking.method)
            with bars.open("evaluate", len(inputs.questions), "question", done) as bar:
                return evaluate_questions(
                    inputs.questions,
                    engine,
                    inputs.retriever,
                    folder,
                    method=asking.method,
                    rules=rules,
                    sampling=Sampling(temperature),
                    seed=asking.seed,
                    examples=shown,
                    retry_malformed=retry_malformed,
                    chunk=chunk,
                    audited=True,
                    on_event=showing(bar),
                )
        finally:
            engine.release()  # its caller may have other use for the memory
