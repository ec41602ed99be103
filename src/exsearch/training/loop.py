"""The loop is warm-up, then E-step and M-step in turn; the best iteration by dev is kept and named.

Every stage leaves a complete file or folder behind, so running it again passes over what is done
and goes on where it stopped; on a CPU the final weights are then the same bits as undisturbed.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from exsearch.config import to_plain
from exsearch.engines.base import Engine
from exsearch.errors import ConfigError, TrainingError
from exsearch.evaluation.evaluate import evaluate
from exsearch.records import Question, WeightedTrajectory, to_json
from exsearch.retrievers.base import Retriever
from exsearch.runs import is_complete, write_atomic
from exsearch.training.checkpoint import (
    adapter_base,
    load_trainable,
    load_training,
    save_model,
    save_training,
)
from exsearch.training.e_step import WeightedFile, by_question, sample_and_weigh
from exsearch.training.figures import e_step_figures
from exsearch.training.interrupt import SavedOnInterrupt
from exsearch.training.journal import Journal
from exsearch.training.m_step import m_step, new_optimizer
from exsearch.training.recipe import EStepConfig, MStepConfig, Recipe
from exsearch.training.warm_up import WarmUpData, check_prompts, read_examples, warm_up_data
from exsearch.training.weights import objective_estimate

BEST_FILE = "best.json"
METRICS_FILE = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
TEACHER_FILE = "teacher.jsonl"


class Loop:
    """One training run in one folder.

    Args:
        recipe: What to do.
        folder: The run's folder.
        train, dev: Questions with answers.
        retriever: Answers sub-queries.
        engine: Samples and scores; starts with the weights in `start`.
        start: Folder of the model to start from.
        device: Where the M-step trains.
        progress: False hides the progress bars.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        train: Sequence[Question],
        dev: Sequence[Question],
        retriever: Retriever,
        engine: Engine,
        start: str | Path,
        device: torch.device,
        progress: bool = True,
    ):
        self.recipe, self.folder = recipe, folder
        self.retriever, self.engine, self.device = retriever, engine, device
        self.model = self._loaded = str(start)  # newest weights; those that the engine holds
        self.progress = progress
        self.journal = Journal(folder / METRICS_FILE)
        self.train = [q for q in train if q.distinct_answers]
        random.Random(recipe.seed).shuffle(self.train)
        dev = [q for q in dev if q.distinct_answers]
        self.dev = dev[: recipe.gem.dev_questions or None]
        if not self.train:
            raise ConfigError("no train question has an answer: the E-step has nothing to weigh by")

    def run(self) -> dict[str, Any]:
        """All stages; what `best.json` then says: the best stage, its model and dev figures.

        Raises:
            TrainingError: a loss is not finite, no question carries signal, too many failures.
            KeyboardInterrupt: after Ctrl-C; the state is saved.
        """
        finished = self.folder / BEST_FILE
        if finished.exists():  # models that were not kept must not be trained again
            return json.loads(finished.read_text())
        stages = ["start"]
        pool = self.train
        if self.recipe.warm_up.examples or self.recipe.warm_up.file:
            stages = ["warm_up"]
            pool = self._warm_up()
        self._measure(stages[0])
        for iteration in range(1, self.recipe.gem.iterations + 1):
            stages.append(f"iteration-{iteration:02d}")
            self._iterate(stages[-1], iteration, pool)
            self._measure(stages[-1])
            if self._out_of_patience(stages):
                break
        return self._name_best(stages)

    def _warm_up(self) -> list[Question]:
        """Supervised fine-tuning; the train questions that it did not use."""
        config, stage = self.recipe.warm_up, self._stage("warm_up")
        file = stage / TRAJECTORIES
        if not file.exists():
            if config.file:
                items, left_out = read_examples(Path(config.file)), {}
                check_prompts(items, Path(config.file), self.recipe.agent, self.engine.tokenizer)
            else:
                data = self._warm_up_data(stage / TEACHER_FILE)
                items, left_out = data.items, {k: len(v) for k, v in data.left_out.items()}
            if not items:
                raise TrainingError(
                    "no train question gives a warm-up example (they need a decomposition whose "
                    f"support is found, or a teacher's right answer; left out: {left_out}); set "
                    "warm_up.examples=0 to start without"
                )
            self.journal.log("warm_up", "data", examples=len(items), left_out=left_out)
            write_atomic(file, "".join(to_json(i) + "\n" for i in items))
        items = WeightedFile(file)
        self._m_step("warm_up", items, config)
        used = {i.trajectory.question.id for i in items}
        return [q for q in self.train if q.id not in used]

    def _warm_up_data(self, teacher_file: Path) -> WarmUpData:
        config, teacher = self.recipe.warm_up, self.recipe.teacher
        tokenizer, agent = self.engine.tokenizer, self.recipe.agent
        if config.source == "teacher" and teacher:
            from exsearch.training.teacher import teach

            with self._bar("warm_up teacher", config.examples, "example") as bar:
                return teach(
                    self.train,
                    teacher,
                    self.retriever,
                    tokenizer,
                    agent,
                    examples=config.examples,
                    file=teacher_file,
                    on_example=bar.update,
                )
        return warm_up_data(
            self.train,
            self.retriever,
            tokenizer,
            agent,
            examples=config.examples,
            missing_support=config.missing_support,
        )

    def _iterate(self, stage: str, iteration: int, pool: Sequence[Question]) -> None:
        config, folder = self.recipe.e_step, self._stage(stage)
        if not pool:
            raise ConfigError(
                f"warm-up used all {len(self.train)} train questions and none is left for the "
                "E-step: lower warm_up.examples, or name a larger data.train"
            )
        chosen = window(pool, config.questions or len(pool), iteration)
        file = folder / TRAJECTORIES
        if not is_complete(folder / "model"):
            self._e_step(stage, chosen, file, config, self.recipe.seed, iteration)
        items = WeightedFile(file)
        if all(i.weight == 0 for i in items):
            raise TrainingError(
                f"{stage}: no sampled trajectory reached an answer, so none has a weight; warm up "
                "first (warm_up.examples), or start from a model that follows the format"
            )
        self._m_step(stage, items, self.recipe.m_step)

    def _e_step(
        self,
        stage: str,
        questions: Sequence[Question],
        file: Path,
        config: EStepConfig,
        seed: int,
        iteration: int,
        event: str = "e_step",
    ) -> WeightedFile:
        self._use(self.model)
        with self._bar(f"{stage} {event}", len(questions) * config.samples, "trajectory") as bar:
            chunks = sample_and_weigh(
                questions,
                self.engine,
                self.retriever,
                file,
                config,
                self.recipe.agent,
                seed=seed,
                iteration=iteration,
                on_finished=bar.update,
            )
        items = WeightedFile(file)
        totals = {k: round(sum(c[k] for c in chunks), 3) for k in chunks[0] if k != "bytes"}
        exact = config.sampling.is_model or (config.proposal_correction and config.top_p == 1)
        self.journal.log(stage, event, **e_step_figures(items), **totals, weights_exact=exact)
        return items

    def _m_step(self, stage: str, items: Sequence[WeightedTrajectory], config: MStepConfig) -> None:
        """Fine-tune from the newest weights into `<stage>/model`, unless that is there."""
        done, checkpoint = self._stage(stage) / "model", self._stage(stage) / "checkpoint"
        if not is_complete(done):
            resumed = is_complete(checkpoint)
            model = load_trainable(checkpoint if resumed else self.model, config, self.device)
            optimizer = new_optimizer(model, config)
            first = load_training(optimizer, checkpoint) if resumed else 0
            with self._bar(f"{stage} m_step", None, "token") as bar, SavedOnInterrupt() as stop:
                saved = time.monotonic()

                def on_step(figures: dict[str, float]) -> None:
                    nonlocal saved
                    step, total = int(figures["step"]), int(figures["steps"])
                    bar.set_postfix_str(f"step {step}/{total}, loss {figures['loss']:.3f}")
                    bar.total = round(bar.n + figures["tokens"]) * (total - first) // (step - first)
                    bar.update(figures["tokens"])
                    # Journal first: a kill between the two repeats the step, and it is logged once.
                    values = {k: v for k, v in figures.items() if k != "step"}
                    self.journal.log(stage, "step", step=step, **values)
                    due = time.monotonic() - saved >= self.recipe.gem.checkpoint_seconds
                    if stop.wanted or (due and step < total):
                        save_training(model, optimizer, step, self.model, checkpoint)
                        saved = time.monotonic()
                    stop.check()

                seed = f"{self.recipe.seed}/{stage}"
                summary = m_step(
                    model, optimizer, items, config, seed=seed, first_step=first, on_step=on_step
                )
            settings = {
                "agent": to_plain(self.recipe.agent),
                "system_prompt": self.recipe.model.system_prompt,
                "chat_template_kwargs": self.recipe.model.chat_template_kwargs,
            }
            self.journal.log(stage, "m_step", **{**summary, "resumed_at_step": first})
            save_model(model, self.model, done, settings)
            del model, optimizer
        shutil.rmtree(checkpoint, ignore_errors=True)
        self.model = str(done)

    def _measure(self, stage: str) -> None:
        """Dev figures, and the objective on the fixed probe set, of the newest weights."""
        gem, folder = self.recipe.gem, self._stage(stage)
        if self.dev and not self.journal.find(stage, "dev"):
            self._use(self.model)
            with self._bar(f"{stage} dev", len(self.dev), "question") as bar:
                summary = evaluate(
                    self.dev,
                    self.engine,
                    self.retriever,
                    folder / "dev",
                    agent=self.recipe.agent,
                    max_error_share=self.recipe.e_step.max_error_share,
                    on_finished=bar.update,
                )
            self.journal.log(stage, "dev", **summary)
        if gem.probe_questions and not self.journal.find(stage, "objective"):
            config = EStepConfig(samples=gem.probe_samples, chunk=self.recipe.e_step.chunk)
            probe = self.train[-gem.probe_questions :]
            file = folder / "probe.jsonl"
            # The same questions, K and seeds at every stage: only the weights differ.
            items = self._e_step(stage, probe, file, config, self.recipe.seed + 1, 0, "probe")
            scores = [[i.answer_log_prob for i in g] for g in by_question(items)]
            mean, error = objective_estimate(scores)
            self.journal.log(stage, "objective", mean=mean, standard_error=error)

    def _out_of_patience(self, stages: Sequence[str]) -> bool:
        patience = self.recipe.gem.patience
        best = self._best(stages)
        return bool(patience and best and len(stages) - 1 - stages.index(best) >= patience)

    def _best(self, stages: Sequence[str]) -> str | None:
        found = {s: e for s in stages if (e := self.journal.find(s, "dev"))}
        # max keeps the first of equals: the earlier stage, which has seen less training
        return max(found, key=lambda s: found[s][self.recipe.gem.select_by]) if found else None

    def _name_best(self, stages: Sequence[str]) -> dict[str, Any]:
        best = self._best(stages) or stages[-1]
        own = self.folder / best / "model"
        model = f"{best}/model" if is_complete(own) else self.recipe.model.name
        result = {
            "stage": best,
            "model": model,
            "selected_by": f"dev {self.recipe.gem.select_by}",
            "dev": self.journal.find(best, "dev"),
        }
        # First: a finished run never trains again the models that are then deleted.
        write_atomic(self.folder / BEST_FILE, json.dumps(result, indent=1))
        if not self.recipe.gem.keep_models:
            kept = {self.folder / stage / "model" for stage in (best, stages[-1])}
            kept |= {base for model in kept if (base := adapter_base(model))}
            kept = {model.resolve() for model in kept}
            for model in (self.folder / stage / "model" for stage in stages):
                if model.resolve() not in kept:
                    shutil.rmtree(model, ignore_errors=True)
        return result

    def _stage(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _use(self, model: str) -> None:
        if self._loaded != model:
            self.engine.load_weights(Path(model))
            self._loaded = model

    def _bar(self, description: str, total: int | None, unit: str) -> Any:
        return tqdm(
            total=total, desc=description, unit=f" {unit}", disable=not self.progress, mininterval=1
        )


def window(pool: Sequence[Question], size: int, iteration: int) -> list[Question]:
    """The questions of an iteration: consecutive windows of the pool, going round."""
    size = min(size, len(pool))
    start = (iteration - 1) * size
    return [pool[(start + i) % len(pool)] for i in range(size)]
