"""A recipe is everything that determines a run, as one tree of settings; it is read from TOML.

Each part is defined beside what it configures. Paths are relative to the recipe's own folder.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from exsearch.config import check_least, check_share, renamed
from exsearch.engines.config import ModelConfig
from exsearch.engines.server.config import EndpointConfig
from exsearch.errors import ConfigError
from exsearch.evaluation.metrics import find_metric
from exsearch.methods import MethodField, open_method
from exsearch.retrievers import DEFAULT_KIND
from exsearch.training.e_step import EStepConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Files of passages and questions; `sample` stands for the packaged ones."""

    corpus: list[str] = dataclasses.field(default_factory=lambda: ["sample"])
    train: str = "sample"
    dev: str = "sample"


@dataclasses.dataclass(frozen=True)
class RetrieverConfig:
    """What answers sub-queries.

    Attributes:
        kind: The kind of index that is built from `data.corpus`, where `index` names none.
        index: An index folder, which says its own kind, or the address of a search server.
        cache: Searches that are remembered; 0 remembers none.
    """

    kind: str = DEFAULT_KIND
    index: str | None = None
    cache: int = 100_000

    def __post_init__(self) -> None:
        check_least(self, cache=0)


@dataclasses.dataclass(frozen=True)
class GemConfig:
    """The loop: iterations of E-step and M-step.

    Attributes:
        iterations: The most iterations that are run.
        patience: Stop after so many iterations without a better dev figure; 0 never does.
        select_by: The metric on dev questions by which the best iteration is chosen.
        dev_questions: Dev questions evaluated after each iteration; 0 takes all.
        probe_questions: Train questions of the fixed set on which the objective is estimated.
        probe_samples: K, samples a question, of that estimate.
        checkpoint_seconds: Seconds between two checkpoints within an M-step.
        keep_models: Keep every iteration's model, or only the best and the newest.
    """

    iterations: int = 2
    patience: int = 0
    select_by: str = "f1"
    dev_questions: int = 0
    probe_questions: int = 0
    probe_samples: int = 4
    checkpoint_seconds: float = 600.0
    keep_models: bool = True

    def __post_init__(self) -> None:
        check_least(
            self, iterations=0, patience=0, dev_questions=0, probe_questions=0, probe_samples=1
        )
        find_metric(self.select_by)


@dataclasses.dataclass(frozen=True)
class MStepConfig:
    """How a model is fine-tuned; optimizer and schedule start anew each time.

    Attributes:
        learning_rate: The highest rate, reached after `rise_share` of the optimizer steps; from
            there it falls to 0 as a cosine.
        epochs: Passes over the questions.
        questions_per_step: Questions in one optimizer step.
        token_budget: Tokens in one pass; gradients add up over an optimizer step.
        rise_share: The share of the optimizer steps in which the rate rises, linearly.
        max_grad_norm: Gradients are clipped to this norm.
        weight_decay: AdamW's weight decay.
        min_log_likelihood: A question whose best a_k is below this is left out.
        min_weight: Sequences with less than this share of a question's mean total weight (1 for
            most weightings) are left out, and their mass is logged.
        gradient_checkpointing: Less memory for about a third more time.
        lora_rank: 0 fine-tunes all weights; above 0 trains a LoRA adapter of this rank.
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
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        check_least(self, learning_rate=0, epochs=1, questions_per_step=1, token_budget=1)
        check_least(self, weight_decay=0, min_weight=0, lora_rank=0, lora_alpha=1)
        check_share(self, "rise_share")


@dataclasses.dataclass(frozen=True)
class WarmUpConfig(MStepConfig):
    """Supervised fine-tuning before the first iteration.

    Attributes:
        examples: Trajectories to train on; 0 leaves warm-up out.
        source: Where the trajectories come from: a question's own `decomposition`, or the
            `[teacher]`.
        missing_support: Where a search does not bring the support, or shows of it no more than what
            stands before the answer: `leave_out` the question, or let the record say that `nothing`
            was found.
        file: A file of weighted trajectories (see `exsearch rollout`) to take instead.
    """

    learning_rate: float = 1e-4
    examples: int = 0
    source: Literal["decomposition", "teacher"] = "decomposition"
    missing_support: Literal["leave_out", "nothing"] = "leave_out"
    file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, examples=0)


@dataclasses.dataclass(frozen=True)
class TeacherConfig(EndpointConfig):
    """Who the teacher is, and how it is asked; the other settings are `EndpointConfig`'s.

    Attributes:
        keep: `correct` keeps trajectories that searched and whose own answer is an exact match;
            `all` keeps every one that reached an answer.
        engine: What runs the teacher: `openai` asks the service at `base_url`; any other engine
            (`transformers`, `vllm`, …) runs `model` here.
        device: `auto`, `cpu` or `cuda`, where it runs here.
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
        name: The name of the run's folder, where no other is given.
        seed: Decides the order of questions and all sampling.
        model: What is trained, and how it is run.
        data: Passages and questions.
        retriever: What answers sub-queries.
        method: How questions are answered.
        warm_up: Supervised fine-tuning before the first iteration.
        e_step: How trajectories are sampled and weighed.
        m_step: How the model is fine-tuned on them.
        gem: How often, and what is measured between.
        teacher: A stronger model, needed where `warm_up.source` is `teacher`.

    Raises:
        ConfigError: the teacher is missing, or the M-step can't train what warm-up makes.
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
        if self.warm_up.source == "teacher" and self.teacher is None:
            raise ConfigError(
                'warm_up.source is "teacher": add a section [teacher] with base_url and model'
            )
        warms_up = self.warm_up.examples or self.warm_up.file
        first, then = ((s.lora_rank, s.lora_alpha) for s in (self.warm_up, self.m_step))
        if warms_up and self.warm_up.lora_rank and self.gem.iterations and first != then:
            raise ConfigError(
                f"warm_up.lora_rank and lora_alpha are {first[0]} and {first[1]}, those of m_step "
                f"{then[0]} and {then[1]}: the M-step goes on with the same adapter, so they have "
                "to be the same"
            )
