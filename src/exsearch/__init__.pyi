# The public names, with their types; they are loaded from here on first use.

from exsearch.agent.episode import begin as begin
from exsearch.agent.events import Event as Event
from exsearch.agent.events import EventKind as EventKind
from exsearch.agent.replay import replay as replay
from exsearch.agent.rollout import rollout as rollout
from exsearch.agent.runner import Runner as Runner
from exsearch.data.corpus import read_corpus as read_corpus
from exsearch.data.questions import load_questions as load_questions
from exsearch.engines import load_engine as load_engine
from exsearch.engines.base import (
    GREEDY as GREEDY,
)
from exsearch.engines.base import (
    Engine as Engine,
)
from exsearch.engines.base import (
    Generation as Generation,
)
from exsearch.engines.base import (
    Request as Request,
)
from exsearch.engines.base import (
    Sampling as Sampling,
)
from exsearch.engines.config import ModelConfig as ModelConfig
from exsearch.engines.scripted import ScriptedEngine as ScriptedEngine
from exsearch.errors import (
    ConfigError as ConfigError,
)
from exsearch.errors import (
    DataError as DataError,
)
from exsearch.errors import (
    EngineError as EngineError,
)
from exsearch.errors import (
    ExSearchError as ExSearchError,
)
from exsearch.errors import (
    IndexDamagedError as IndexDamagedError,
)
from exsearch.errors import (
    MissingExtraError as MissingExtraError,
)
from exsearch.errors import (
    ModelError as ModelError,
)
from exsearch.errors import (
    ModelServerError as ModelServerError,
)
from exsearch.errors import (
    RetrieverError as RetrieverError,
)
from exsearch.errors import (
    RunError as RunError,
)
from exsearch.errors import (
    TrainingError as TrainingError,
)
from exsearch.evaluation.evaluate import evaluate as evaluate
from exsearch.evaluation.metrics import Judged as Judged
from exsearch.evaluation.metrics import Metric as Metric
from exsearch.jobs.folder_index import index_folder as index_folder
from exsearch.methods import open_method as open_method
from exsearch.methods.base import (
    Answer as Answer,
)
from exsearch.methods.base import (
    Ask as Ask,
)
from exsearch.methods.base import (
    Look as Look,
)
from exsearch.methods.base import (
    Malformed as Malformed,
)
from exsearch.methods.base import (
    Method as Method,
)
from exsearch.methods.base import (
    Plan as Plan,
)
from exsearch.records import (
    Call as Call,
)
from exsearch.records import (
    CallKind as CallKind,
)
from exsearch.records import (
    Evidence as Evidence,
)
from exsearch.records import (
    Hop as Hop,
)
from exsearch.records import (
    Passage as Passage,
)
from exsearch.records import (
    Question as Question,
)
from exsearch.records import (
    Step as Step,
)
from exsearch.records import (
    StopReason as StopReason,
)
from exsearch.records import (
    Trajectory as Trajectory,
)
from exsearch.records import (
    WeightedTrajectory as WeightedTrajectory,
)
from exsearch.retrievers import build_index as build_index
from exsearch.retrievers import open_retriever as open_retriever
from exsearch.retrievers.base import Retriever as Retriever
from exsearch.searcher import Found as Found
from exsearch.searcher import Searcher as Searcher
from exsearch.training.e_step import EStepConfig as EStepConfig
from exsearch.training.e_step import weigh as weigh
from exsearch.training.m_step import m_step as m_step
from exsearch.training.m_step import new_optimizer as new_optimizer
from exsearch.training.recipe import MStepConfig as MStepConfig
from exsearch.training.recipe import Recipe as Recipe
from exsearch.trajectories import (
    WeightedFile as WeightedFile,
)
from exsearch.trajectories import (
    read_traces as read_traces,
)
from exsearch.trajectories import (
    read_trajectories as read_trajectories,
)

__version__: str
