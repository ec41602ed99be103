"""A recipe is everything that determines a run, as one tree of settings; it is read from TOML.

Paths are relative to the recipe's own folder. `config` reads the file, `jobs/train.py` opens what
it names.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import PurePath
from typing import Any, Literal

from exsearch.config import check_least, check_positive, check_share, renamed
from exsearch.engines.config import ModelConfig
from exsearch.engines.server.config import EndpointConfig
from exsearch.errors import ConfigError
from exsearch.evaluation.metrics import find_metric
from exsearch.methods import MethodField, open_method
from exsearch.retrievers import DEFAULT_KIND
from exsearch.retrievers.guarded import TIMEOUT
from exsearch.training.e_step import EStepConfig

Action = Literal["whole", "think", "record", "nothing", "answer"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Files of passages and questions; `sample` stands for the packaged ones.

    Attributes:
        corpus: Files and folders of passages.
        train: A file of questions to learn from.
        dev: A file of questions to choose the best iteration by; empty chooses the last one.
    """

    corpus: list[str] = dataclasses.field(default_factory=lambda: ["sample"])
    train: str = "sample"
    dev: str = "sample"


@dataclasses.dataclass(frozen=True)
class RetrieverConfig:
    """The retriever that answers sub-queries.

    Attributes:
        kind: The kind of index that is built from `data.corpus`, where `index` names none.
        options: Settings of that kind's own, such as `model` of `dense`.
        index: An index folder, which says its own kind, or the address of a search server.
        cache: The number of searches that are remembered; 0 remembers none.
        timeout: Seconds until a search counts as failed.
    """

    kind: str = DEFAULT_KIND
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    index: str | None = None
    cache: int = 100_000
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        check_least(self, cache=0)
        if not 0 < self.timeout < 1e6:
            raise ValueError(f"timeout is {self.timeout}, expected seconds, above 0")


@dataclasses.dataclass(frozen=True)
class GemConfig:
    """The loop: iterations of E-step and M-step.

    Attributes:
        iterations: The most iterations that are run.
        patience: The number of iterations without a better dev figure after which the run stops;
            0 never stops it.
        select_by: The metric on dev questions by which the best iteration is chosen.
        select_group: The group of dev questions whose metric counts for that, such as `neither`,
            which can't be guessed; empty takes all.
        dev_questions: The number of dev questions evaluated after each stage; 0 takes all.
        probe_questions: The number of train questions in the fixed set on which the objective is
            estimated after each stage; 0 estimates none.
        probe_samples: K, the number of samples a question in that estimate.
        action_questions: The number of dev questions with a decomposition on which each action is
            measured by itself after each stage (`action_figures`); 0 measures none.
        checkpoint_seconds: Seconds between two checkpoints within an M-step.
        keep_models: True keeps every iteration's model, False only the best and the newest.
        alarms: Whether what looks wrong after an iteration is written into the log, with what to
            try (docs/diagnosis.md).
    """

    iterations: int = 2
    patience: int = 0
    select_by: str = "f1"
    select_group: Literal["", "in question", "yes/no", "neither"] = ""
    dev_questions: int = 0
    probe_questions: int = 0
    probe_samples: int = 4
    action_questions: int = 0
    checkpoint_seconds: float = 600.0
    keep_models: bool = True
    alarms: bool = True

    def __post_init__(self) -> None:
        check_least(
            self, iterations=0, patience=0, dev_questions=0, probe_questions=0, probe_samples=1
        )
        check_least(self, action_questions=0, checkpoint_seconds=0)
        find_metric(self.select_by)


@dataclasses.dataclass(frozen=True)
class MStepConfig:
    """How a model is fine-tuned; optimizer and schedule start anew each time.

    Attributes:
        learning_rate: The highest rate, reached after `rise_share` of the optimizer steps; from
            there it falls to 0 as a cosine.
        epochs: The number of times that each question is learned from.
        questions_per_step: The number of questions in one optimizer step.
        token_budget: The most tokens in one pass of the model; a longer sequence has a pass of its
            own. Gradients add up over an optimizer step.
        rise_share: The share of the optimizer steps in which the rate rises, linearly.
        max_grad_norm: The norm that gradients are clipped to, above 0; `inf` clips none.
        weight_decay: The weight decay of AdamW.
        min_log_likelihood: The least that the best a_k of a question must be, in nats; other
            questions are left out.
        min_weight: Trajectories with less than this share of the largest w_k of their question are
            left out, and so are accepted answers with less than this share of the largest r_kj of
            their trajectory, whose part the others take over. What is left out is logged.
        clip: ε, the most that the ratio of policies may differ from 1 to count, above 0; for
            `e_step.weighting = "group_advantage"` alone.
        gradient_checkpointing: Saves memory for about a third more time.
        lora_rank: The rank of a LoRA adapter that is trained; 0 fine-tunes all weights instead.
        lora_alpha: The adapter's scale, times its rank.
    """

    learning_rate: float = 2e-6
    epochs: int = 1
    questions_per_step: int = 8
    token_budget: int = 2048
    rise_share: float = renamed("warm_up_share", default=0.1)
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    min_log_likelihood: float = -math.inf
    min_weight: float = 1e-3
    clip: float = 0.2
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        check_least(self, learning_rate=0, epochs=1, questions_per_step=1, token_budget=1)
        check_least(self, weight_decay=0, lora_rank=0, lora_alpha=1)
        check_least(self, min_log_likelihood=-math.inf)  # not NaN
        check_share(self, "rise_share", "min_weight")
        check_positive(self, "max_grad_norm", "clip")


@dataclasses.dataclass(frozen=True)
class WarmUpConfig(MStepConfig):
    """Supervised fine-tuning before the first iteration.

    Attributes:
        examples: The number of trajectories to train on; 0 leaves warm-up out.
        source: The source of the trajectories: each question's own `decomposition`, or the
            `[teacher]`.
        missing_support: What becomes of a question whose support is not found, or is not shown as
            far as the answer: `leave_out` leaves it out; `nothing` has the record say that nothing
            was found.
        file: A file of weighted trajectories, such as `exsearch rollout` writes, that is taken in
            place of `examples` from `source`.
        mix: The number of examples of each action (`whole`, `think`, `record`, `nothing`, `answer`)
            by data set, `*` for all, that are made in place of `examples` from decompositions and
            supports (`training.actions`).
    """

    learning_rate: float = 1e-4
    examples: int = 0
    source: Literal["decomposition", "teacher"] = "decomposition"
    missing_support: Literal["leave_out", "nothing"] = "leave_out"
    file: str | None = None
    mix: dict[Action, dict[str, int]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, examples=0)
        given = [n for n in ("examples", "file", "mix") if getattr(self, n)]
        if len(given) > 1 and "mix" in given:
            raise ConfigError(f"{' and '.join(given)} are both given: take one of them")
        if any(count < 0 for own in self.mix.values() for count in own.values()):
            raise ConfigError("mix: a number of examples is below 0")

    @property
    def wanted(self) -> bool:
        """True where there is something to learn before the first iteration."""
        return bool(self.examples or self.file or self.mix)


@dataclasses.dataclass(frozen=True)
class TeacherConfig(EndpointConfig):
    """The settings of the teacher; `EndpointConfig` explains those that are not below.

    Attributes:
        keep: `correct` keeps trajectories that searched and whose own answer is an exact match;
            `all` keeps every one that reached an answer.
        engine: The engine that runs the teacher: `openai` asks the service at `base_url`; any other
            (`transformers`, `vllm`, …) runs `model` here.
        device: The device of a teacher that runs here: `auto`, `cpu` or `cuda`.
    """

    keep: Literal["correct", "all"] = "correct"
    engine: str = "openai"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    role = "teacher"
    settings = "the [teacher] settings"

    def __post_init__(self) -> None:
        if self.engine == "openai":
            super().__post_init__()
        elif not self.model:
            raise ConfigError("teacher.model is missing: it names the model that teaches")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        name: The name of the run's folder below `runs/`, where no other is given.
        seed: Decides the order of questions and all sampling.
        model: The model that is trained, and how it is run.
        data: The files of passages and questions.
        retriever: The retriever that answers sub-queries.
        method: How questions are answered.
        warm_up: Supervised fine-tuning before the first iteration.
        e_step: How trajectories are sampled and weighed.
        m_step: How the model is fine-tuned on them.
        gem: How many iterations are run, and what is measured after each.
        teacher: A stronger model, needed where `warm_up.source` is `teacher`; else None.

    Raises:
        ConfigError: the name leads out of `runs/`, the teacher is missing, or the M-step can't
            train what warm-up makes.
    """

    name: str
    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    retriever: RetrieverConfig = dataclasses.field(default_factory=RetrieverConfig)
    method: MethodField = renamed("agent", default_factory=open_method)
    warm_up: WarmUpConfig = dataclasses.field(default_factory=WarmUpConfig)
    e_step: EStepConfig = dataclasses.field(default_factory=EStepConfig)
    m_step: MStepConfig = dataclasses.field(default_factory=MStepConfig)
    gem: GemConfig = dataclasses.field(default_factory=GemConfig)
    teacher: TeacherConfig | None = None

    def __post_init__(self) -> None:
        name = PurePath(self.name)
        if not name.parts or name.is_absolute() or ".." in name.parts or "\0" in self.name:
            raise ConfigError(f"name is {self.name!r}, expected the name of a folder below runs/")
        if self.warm_up.source == "teacher" and self.teacher is None:
            raise ConfigError(
                'warm_up.source is "teacher": add a section [teacher] with base_url and model'
            )
        warms_up = self.warm_up.wanted
        first, then = ((s.lora_rank, s.lora_alpha) for s in (self.warm_up, self.m_step))
        if warms_up and self.warm_up.lora_rank and self.gem.iterations and first != then:
            raise ConfigError(
                f"warm_up.lora_rank and lora_alpha are {first[0]} and {first[1]}, those of m_step "
                f"{then[0]} and {then[1]}: the M-step goes on with the same adapter, so they have "
                "to be the same"
            )
