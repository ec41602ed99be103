"""The loop is warm-up, then E-step and M-step in turn; the best iteration by dev is kept and named.

Every stage leaves a complete file or folder behind, so running it again passes over what is done
and goes on where it stopped; on a CPU the final weights are then the same bits as undisturbed. What
the stages compute is in their own modules.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from exsearch.agent.events import showing
from exsearch.engines.base import Engine
from exsearch.errors import ConfigError, RunError, TrainingError
from exsearch.evaluation.evaluate import evaluate
from exsearch.evaluation.metrics import find_metric, with_todays_names
from exsearch.evaluation.score import compare_evaluations
from exsearch.hardware import give_memory_back
from exsearch.json_files import read_json
from exsearch.models.settings import ModelSettings
from exsearch.progress import Bars
from exsearch.records import Question, WeightedTrajectory
from exsearch.retrievers.base import Retriever
from exsearch.runs import is_complete, remove_folder, write_atomic
from exsearch.training.action_figures import action_figures
from exsearch.training.actions import action_data
from exsearch.training.checkpoint import (
    adapter_base,
    load_trainable,
    load_training,
    save_model,
    save_training,
)
from exsearch.training.drill import save_drill
from exsearch.training.e_step import sample_and_weigh
from exsearch.training.figures import e_step_figures, objectives, paired_gain
from exsearch.training.interrupt import SavedOnInterrupt
from exsearch.training.journal import Journal
from exsearch.training.m_step import m_step, new_optimizer
from exsearch.training.recipe import EStepConfig, MStepConfig, Recipe
from exsearch.training.shared_samples import shared_samples
from exsearch.training.stages import START, WARM_UP, RunFolder, Stage, iteration_name
from exsearch.training.teacher import teach
from exsearch.training.warm_up import WarmUpData, check_prompts, warm_up_data
from exsearch.training.weights import mean_and_error
from exsearch.trajectories import WeightedFile, to_lines

logger = logging.getLogger(__name__)


class Loop:
    """One training run in one folder.

    Args:
        recipe: All settings of the run.
        folder: The run's folder.
        train: The questions to learn from; those without answers are left out.
        dev: The questions to choose the best iteration by; those without answers are left out.
        retriever: The retriever that answers sub-queries.
        engine: The engine that samples and scores; it holds the weights of `start` to begin with.
        start: The folder or id of the model to start from.
        device: The device that the M-step trains on.
        open_teacher: A function that opens the teacher's engine; None where the recipe has none.
        on_round: A function that is called with each iteration's stage once it is measured.
        bars: Opens the progress bars.

    Raises:
        ConfigError: no train question has an answer.
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
        open_teacher: Callable[[], Engine] | None = None,
        on_round: Callable[[str], object] | None = None,
        bars: Bars,
    ):
        self.recipe, self.run_folder, self.bars = recipe, RunFolder(folder), bars
        self.retriever, self.engine, self.device = retriever, engine, device
        self.open_teacher, self.on_round = open_teacher, on_round
        self.model = self._loaded = str(start)  # newest weights; those that the engine holds
        self.journal = Journal(self.run_folder.metrics)
        self.train = [q for q in train if q.distinct_answers]
        random.Random(recipe.seed).shuffle(self.train)
        self._probe: list[Question] = []
        self._learned: set[str] = set()  # ids of the questions of warm-up and E-steps so far
        dev = [q for q in dev if q.distinct_answers]
        self.dev = dev[: recipe.gem.dev_questions or None]
        if not self.train:
            raise ConfigError("no train question has an answer: the E-step has nothing to weigh by")

    def run(self) -> dict[str, Any]:
        """Run all stages that are not done.

        Returns:
            The content of `best.json`: the best stage, its model and its dev figures.

        Raises:
            TrainingError: a loss is not finite, no question carries signal, too many samples
                failed, or warm-up finds no example.
            ConfigError: warm-up leaves no question for the E-step.
            KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
            OSError: the disk is full, or does not keep what is written to it.
        """
        finished = self.run_folder.best
        if finished.exists():  # models that were not kept must not be trained again
            remedy = "put it back; a run that has it is not trained again"
            result = read_json(finished, RunError, remedy, stage=str, model=str)
            self._remove_others(result["stage"])  # an earlier process may have been killed at it
            return result
        warms_up = self.recipe.warm_up.wanted
        if (warms_up or self.recipe.gem.iterations) and not self.run_folder.has_learned:
            config = self.recipe.warm_up if warms_up else self.recipe.m_step
            self._release()
            save_drill(self.model, config, self.device, self.run_folder.folder / ".drill")
        stages, order = [START], self.train
        if warms_up:
            stages = [WARM_UP]
            order = self._warm_up()
        pool = [q for q in order if q.id not in self._learned]
        if self.recipe.gem.probe_questions:  # the last ones, which the windows come to last
            self._probe = order[-self.recipe.gem.probe_questions :]
        self._measure(stages)
        for iteration in range(1, self.recipe.gem.iterations + 1):
            stages.append(iteration_name(iteration))
            self._iterate(stages[-1], iteration, pool)
            self._measure(stages)
            if self.on_round:
                self.on_round(stages[-1])
            if self._out_of_patience(stages):
                break
        return self._name_best(stages)

    def _warm_up(self) -> list[Question]:
        """Fine-tune on warm-up data; returns the train questions, those learned from first."""
        config, stage = self.recipe.warm_up, self._stage(WARM_UP)
        if not stage.trajectories.exists():
            counts: dict[str, Any] = {}
            if config.file:
                items, left_out = list(WeightedFile(Path(config.file))), {}
                tokenizer = self.engine.tokenizer
                check_prompts(items, Path(config.file), self.recipe.method, tokenizer)
            else:
                data = self._warm_up_data(stage)
                items, left_out = data.items, {k: len(v) for k, v in data.left_out.items()}
                counts = {"counts": data.counts} if data.counts else {}
            if not items:
                raise TrainingError(
                    "no train question gives a warm-up example (they need a decomposition whose "
                    f"support is found, or a teacher's right answer; left out: {left_out}); set "
                    "warm_up.examples=0 to start without"
                )
            self.journal.log(WARM_UP, "data", examples=len(items), left_out=left_out, **counts)
            write_atomic(stage.trajectories, "".join(f"{line}\n" for line in to_lines(items)))
        items = WeightedFile(stage.trajectories)
        self._learned = {i.trajectory.question.id for i in items}
        order = self._reshuffled()
        self._m_step(WARM_UP, items, config)
        return order

    def _reshuffled(self) -> list[Question]:
        """The train questions, those of warm-up first and all others in a new order.

        In the old order the first of the others are the ones that warm-up passed over.
        """
        found = self.journal.find
        if found(WARM_UP, "m_step") and not found(WARM_UP, "pool"):
            logger.warning(
                "%s: begun by an older version, which takes the questions that warm-up passed over "
                "first; it goes on in that order: for another one, name another --out",
                self.run_folder.folder,
            )
            return self.train
        used = [q for q in self.train if q.id in self._learned]
        others = [q for q in self.train if q.id not in self._learned]
        passed_over = sum(((found(WARM_UP, "data") or {}).get("left_out") or {}).values())
        self.journal.log(WARM_UP, "pool", questions=len(others), passed_over=passed_over)
        random.Random(f"{self.recipe.seed}/pool").shuffle(others)
        return used + others

    def _warm_up_data(self, stage: Stage) -> WarmUpData:
        """The examples of the teacher or of the decompositions, as the recipe says."""
        config, teacher = self.recipe.warm_up, self.recipe.teacher
        common = self.retriever, self.engine.tokenizer, self.recipe.method
        if config.source == "teacher" and teacher:
            assert self.open_teacher is not None
            with self.bars.open("warm_up teacher", config.examples, "example") as bar:
                return teach(
                    self.train,
                    teacher,
                    self.open_teacher,
                    *common,
                    examples=config.examples,
                    file=stage.taught,
                    seed=self.recipe.seed,
                    on_example=bar.update,
                )
        if config.mix:
            return action_data(self.train, *common, config.mix, seed=self.recipe.seed)
        examples, missing = config.examples, config.missing_support
        return warm_up_data(self.train, *common, examples=examples, missing_support=missing)

    def _iterate(self, name: str, iteration: int, pool: Sequence[Question]) -> None:
        """One iteration: an E-step on its window of questions, then an M-step on the result."""
        config, stage = self.recipe.e_step, self._stage(name)
        if not pool:
            raise ConfigError(
                f"warm-up used all {len(self.train)} train questions and none is left for the "
                "E-step: lower warm_up.examples, or name a larger data.train"
            )
        chosen = window(pool, config.questions or len(pool), iteration)
        self._learned |= {q.id for q in chosen}
        if not is_complete(stage.model):
            if iteration == 1 and config.samples_of:
                self._share_samples(name, chosen, stage.trajectories)
            else:
                seed = self.recipe.seed
                self._e_step(name, chosen, stage.trajectories, config, seed, iteration)
        items = WeightedFile(stage.trajectories)
        policy = config.weighting == "group_advantage"
        if all(i.weight == 0 for i in items):
            why = (
                "all samples of each question have the same reward"
                if policy
                else ("no sampled trajectory reached an answer, so none has a weight")
            )
            raise TrainingError(
                f"{name}: {why}; warm up first (warm_up.examples), or start from a model that "
                "follows the format"
            )
        self._m_step(name, items, self.recipe.m_step, policy=policy)

    def _share_samples(self, name: str, questions: Sequence[Question], file: Path) -> None:
        """Weigh what another run sampled, and write down the figures as those of an E-step."""
        config = self.recipe.e_step
        items, cost = shared_samples(self.recipe, questions)
        write_atomic(file, "".join(f"{line}\n" for line in to_lines(items)))
        figures = e_step_figures(items, config)
        self.journal.log(name, "e_step", **figures, **cost, samples_of=config.samples_of)

    def _e_step(
        self,
        name: str,
        questions: Sequence[Question],
        file: Path,
        config: EStepConfig,
        seed: int,
        iteration: int,
        event: str = "e_step",
    ) -> WeightedFile:
        """Sample and weigh with the newest weights, and write down the figures as an event."""
        self._use(self.model)
        total = len(questions) * config.samples
        with self.bars.open(f"{name} {event}", total, "trajectory") as bar:
            chunks = sample_and_weigh(
                questions,
                self.engine,
                self.retriever,
                file,
                config,
                self.recipe.method,
                seed=seed,
                iteration=iteration,
                on_event=showing(bar),
            )
        items = WeightedFile(file)
        totals = {k: round(sum(c[k] for c in chunks), 3) for k in chunks[0]}
        figures = e_step_figures(items, config)
        self.journal.log(name, event, **figures, **totals)
        return items

    def _m_step(
        self,
        name: str,
        items: Sequence[WeightedTrajectory],
        config: MStepConfig,
        *,
        policy: bool = False,
    ) -> None:
        """Fine-tune from the newest weights into the stage's model, unless that is there."""
        stage = self._stage(name)
        if not is_complete(stage.model):
            resumed = is_complete(stage.checkpoint)
            self._release()
            model = load_trainable(stage.checkpoint if resumed else self.model, config, self.device)
            optimizer = new_optimizer(model, config)
            first = load_training(optimizer, stage.checkpoint) if resumed else 0
            bars = self.bars.open(f"{name} m_step", None, "token")
            with bars as bar, SavedOnInterrupt() as stop:
                saved = time.monotonic()

                def on_step(figures: dict[str, float]) -> None:
                    nonlocal saved
                    step, total = int(figures["step"]), int(figures["optimizer_steps"])
                    bar.set_postfix_str(f"step {step}/{total}, loss {figures['loss']:.3f}")
                    bar.total = round(bar.n + figures["tokens"]) * (total - first) // (step - first)
                    bar.update(figures["tokens"])
                    # The journal first: a kill before the checkpoint repeats the optimizer step,
                    # and a repeated event is logged once.
                    values = {k: v for k, v in figures.items() if k != "step"}
                    self.journal.log(name, "step", step=step, **values)
                    due = time.monotonic() - saved >= self.recipe.gem.checkpoint_seconds
                    if stop.wanted or (due and step < total):
                        save_training(model, optimizer, step, self.model, stage.checkpoint)
                        saved = time.monotonic()
                    stop.check()

                seed = f"{self.recipe.seed}/{name}"
                summary = m_step(
                    model,
                    optimizer,
                    items,
                    config,
                    seed=seed,
                    first_step=first,
                    policy=policy,
                    on_step=on_step,
                )
            self.journal.log(name, "m_step", **{**summary, "resumed_at_step": first})
            save_model(model, self.model, stage.model, self._asked_as)
            del model, optimizer
            give_memory_back()
        remove_folder(stage.checkpoint)
        self.model = str(stage.model)

    @property
    def _asked_as(self) -> ModelSettings:
        model = self.recipe.model
        return ModelSettings(self.recipe.method, model.system_prompt, model.chat_template_kwargs)

    def _measure(self, stages: Sequence[str]) -> None:
        """Write down the dev figures and the probe set's objective of the newest weights."""
        gem, name = self.recipe.gem, stages[-1]
        stage = self._stage(name)
        before = self._stage(stages[-2]) if len(stages) > 1 else None
        if self.dev and not self.journal.find(name, "dev"):
            self._use(self.model)
            with self.bars.open(f"{name} dev", len(self.dev), "question") as bar:
                summary = evaluate(
                    self.dev,
                    self.engine,
                    self.retriever,
                    stage.dev,
                    method=self.recipe.method,
                    # A retry is drawn at temperature 1, and dev is to be greedy.
                    retry_malformed=False,
                    max_error_share=self.recipe.e_step.max_error_share,
                    on_event=showing(bar),
                )
            gain = compare_evaluations(stage.dev, before.dev, gem.select_by) if before else None
            self.journal.log(name, "dev", **summary, gain=gain)
        if self.dev and gem.action_questions and not self.journal.find(name, "actions"):
            self._use(self.model)
            asked = self.engine, self.retriever, self.recipe.method
            figures = action_figures(self.dev, *asked, most=gem.action_questions)
            self.journal.log(name, "actions", **figures)
        if gem.probe_questions and not self.journal.find(name, "objective"):
            config = EStepConfig(samples=gem.probe_samples, chunk=self.recipe.e_step.chunk)
            # The same questions, K and seeds at every stage: only the weights differ.
            items = self._e_step(
                name, self._probe, stage.probe, config, self.recipe.seed + 1, 0, event="probe"
            )
            self._log_objective(name, objectives(items), before)

    def _log_objective(self, name: str, now: dict[str, float], before: Stage | None) -> None:
        """Write down the objective, how far it rose on the same questions, and who saw these."""
        mean, error = mean_and_error(list(now.values()))
        figures: dict[str, Any] = {"mean": mean, "standard_error": error, "gain": None}
        if before and before.probe.exists():
            rise, its_error = paired_gain(now, objectives(WeightedFile(before.probe)))
            figures["gain"] = {"difference": rise, "standard_error": its_error}
            if rise < -its_error:
                logger.warning("%s: the objective fell by %.2f ± %.2f", name, -rise, its_error)
        held_out = sum(q.id not in self._learned for q in self._probe)
        self.journal.log(
            name, "objective", questions=len(self._probe), held_out=held_out, **figures
        )

    def _out_of_patience(self, stages: Sequence[str]) -> bool:
        patience = self.recipe.gem.patience
        best = self._best(stages)
        return bool(patience and best and len(stages) - 1 - stages.index(best) >= patience)

    def _best(self, stages: Sequence[str]) -> str | None:
        found = {s: with_todays_names(e) for s in stages if (e := self.journal.find(s, "dev"))}
        by, group = find_metric(self.recipe.gem.select_by).name, self.recipe.gem.select_group
        if group:
            found = {s: figures["groups"].get(group, {}) for s, figures in found.items()}
        # max keeps the first of equals: the earlier stage, which has seen less training
        return max(found, key=lambda s: found[s].get(by) or 0.0) if found else None

    def _name_best(self, stages: Sequence[str]) -> dict[str, Any]:
        """Write `best.json`, then delete the models that are not kept; returns its content."""
        best = self._best(stages) or stages[-1]
        own = self._stage(best).model
        by, group = find_metric(self.recipe.gem.select_by).name, self.recipe.gem.select_group
        result = {
            "stage": best,
            "model": f"{best}/{own.name}" if is_complete(own) else self.recipe.model.name,
            "selected_by": f"dev {by}{group and f', {group}'}" if self.dev else "the last stage",
            "dev": self.journal.find(best, "dev"),
        }
        # First: a finished run never trains again the models that are then deleted.
        write_atomic(self.run_folder.best, json.dumps(result, indent=1))
        self._remove_others(best)
        return result

    def _remove_others(self, best: str) -> None:
        """Delete the models of a finished run, unless the recipe keeps all: best and last stay."""
        if self.recipe.gem.keep_models:
            return
        names = [iteration_name(i) for i in range(1, self.recipe.gem.iterations + 1)]
        models = [self.run_folder.folder / name / "model" for name in (WARM_UP, *names)]
        models = [model for model in models if model.is_dir()]
        kept = {self.run_folder.folder / best / "model", *models[-1:]}
        kept |= {base for model in kept if (base := adapter_base(model))}
        kept = {model.resolve() for model in kept}
        for model in models:
            if model.resolve() not in kept:
                remove_folder(model)

    def _stage(self, name: str) -> Stage:
        return self.run_folder.stage(name)

    def _release(self) -> None:
        """Have the engine give its memory back, which training needs."""
        self.engine.release()
        self._loaded = ""

    def _use(self, model: str) -> None:
        if self._loaded != model:
            self.engine.load_weights(Path(model))
            self._loaded = model


def window(pool: Sequence[Question], size: int, iteration: int) -> list[Question]:
    """The questions of an iteration: consecutive windows of the pool, going round.

    Args:
        pool: The questions of all iterations.
        size: The number of questions in an iteration; more than there are takes all.
        iteration: The number of the iteration, from 1.
    """
    size = min(size, len(pool))
    start = (iteration - 1) * size
    return [pool[(start + i) % len(pool)] for i in range(size)]
