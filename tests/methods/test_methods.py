"""Direct, RAG and Self-Ask ask, look and answer as worked out by hand, and are short."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exsearch.agent.replay import demonstrations
from exsearch.agent.rollout import rollout
from exsearch.cli import cli
from exsearch.config import to_plain
from exsearch.data import sample_path
from exsearch.engines.scripted import ScriptedEngine, ScriptedTokenizer
from exsearch.errors import ConfigError
from exsearch.methods import METHODS, method_values, open_method
from exsearch.methods.base import Answer, Ask, Look, Malformed, Method, Solved
from exsearch.methods.chain_of_thought import ChainOfThoughtMethod
from exsearch.methods.direct import DirectMethod
from exsearch.methods.format import Search
from exsearch.methods.guess import GuessMethod, GuessTitleMethod, guess
from exsearch.methods.ircot import IrcotMethod
from exsearch.methods.iter_retgen import IterRetgenMethod
from exsearch.methods.rag import RagMethod
from exsearch.methods.searcher import SearcherMethod
from exsearch.methods.self_ask import SelfAskMethod
from exsearch.records import CallKind, Evidence, Passage, Question, Step, StopReason

QUESTION = Question("q", "Who wrote  Dune [1]?", ("Frank Herbert",))
DUNE = Passage("d", "Dune", "Dune is a novel by Frank Herbert, who lived in Tacoma.", 2.0)
DUNE_8 = dataclasses.replace(DUNE, text="Dune is a novel by Frank Herbert, who")  # as it is shown
DUNE_5 = dataclasses.replace(DUNE, text="Dune is a novel by")
FILM = Passage("f", "", "A film by\nDavid Lynch.", 1.0)

# The prompts as they are worked out by hand; the question is on one line, its brackets defused.
ANSWER = 'Reply "Answer: <short answer>": a name, a date, a number, yes or no.'
THINK = (
    'Look facts up one at a time, then answer. Reply "Search: <query>" or "Answer: <short answer>".'
)
ASKED = "Question: Who wrote Dune (1)?"
DIRECT = f"{ANSWER}\n{ASKED}"
FOUND = "[1] Dune: Dune is a novel by Frank Herbert, who\n[2] A film by David Lynch."
READ = f"{ANSWER}\n{FOUND}\n{ASKED}"
NOT_FOUND = f"{ANSWER}\n(no passages)\n{ASKED}"
NO_NOTES = f"{THINK}\n{ASKED}\nNotes:\nnone"
ONE_NOTE = f"{THINK}\n{ASKED}\nNotes:\n1. who wrote it Dune is a novel by"
TWO_NOTES = f"{ONE_NOTE}\n2. and where? Nothing found."

Move = Ask | Look


class Driven:
    """A plan that is sent texts by hand, each read as the plan's own `parse` reads it."""

    def __init__(self, method: Method):
        self.steps: list[Step] = []
        self.plan = method.plan(QUESTION, self.steps)
        self.move: Any = next(self.plan)
        self.answer: Answer | None = None

    def send(self, value: Any) -> None:
        try:
            self.move = self.plan.send(value)
        except StopIteration as end:
            self.move, self.answer = None, end.value

    def asks(self, prompt: str, kind: CallKind, max_tokens: int, forced: str = "") -> None:
        """The plan is at this call, which is a new chat without a hint."""
        ask = self.move
        assert isinstance(ask, Ask)
        assert (ask.prompt, ask.kind, ask.max_tokens) == (prompt, kind, max_tokens)
        assert (ask.forced, ask.hint, ask.goes_on) == (forced, "", False)

    def says(self, text: str) -> None:
        reply = self.move.parse(text)
        assert not isinstance(reply, Malformed)
        self.send(reply)


def test_direct_by_hand():
    plan = Driven(DirectMethod(answer_tokens=7))
    plan.asks(DIRECT, CallKind.ANSWER, 7, forced="Answer:")
    assert plan.move.parse("  ") == Malformed("empty_answer")
    assert plan.move.parse("a\nb") == Malformed("several_lines")
    plan.says(" Frank  Herbert ")
    assert plan.answer == Answer("Frank Herbert", 0, StopReason.ANSWERED)
    assert plan.steps == []


def test_rag_by_hand():
    plan = Driven(RagMethod(passages=3, passage_words=8, answer_tokens=7))
    assert plan.move == Look(QUESTION.question, 3, 8)
    plan.send((DUNE_8, FILM))
    assert plan.steps == [Step(QUESTION.question, (DUNE_8, FILM))]
    plan.asks(READ, CallKind.ANSWER, 7, forced="Answer:")
    plan.says(" Frank Herbert")
    assert plan.answer == Answer("Frank Herbert", 0, StopReason.ANSWERED)


def test_rag_that_finds_nothing_says_so():
    plan = Driven(RagMethod())
    plan.send(())
    plan.asks(NOT_FOUND, CallKind.ANSWER, 64, forced="Answer:")


NOTE = Step("who wrote it", (DUNE,), None, Evidence("Dune is a novel by", ("d",)))


def test_self_ask_by_hand():
    plan = Driven(SelfAskMethod(max_steps=3, passage_words=5, thought_tokens=9))
    plan.asks(NO_NOTES, CallKind.THINK, 9)
    assert plan.move.parse("Search: who wrote it") == Search("who wrote it")
    assert plan.move.parse("hm") == Malformed("no_action")
    plan.says("Search: who wrote it")
    assert plan.move == Look("who wrote it", 1, 5)
    plan.send((DUNE_5,))
    assert plan.steps == [dataclasses.replace(NOTE, passages=(DUNE_5,))]
    plan.asks(ONE_NOTE, CallKind.THINK, 9)
    plan.says("Search: and where?")
    assert plan.move == Look("and where?", 1, 5)
    plan.send(())
    assert plan.steps[1:] == [Step("and where?", ())]
    plan.asks(TWO_NOTES, CallKind.THINK, 9)
    plan.says("Answer: Frank Herbert")
    assert plan.answer == Answer("Frank Herbert", stop_reason=StopReason.ANSWERED)
    assert plan.answer is not None and plan.answer.start == len("Answer:")


def test_self_ask_is_forced_to_answer_where_no_search_is_left():
    plan = Driven(SelfAskMethod(max_steps=1, passage_words=5, thought_tokens=9))
    plan.says("Search: who wrote it")
    plan.send((DUNE_5,))
    plan.asks(ONE_NOTE, CallKind.ANSWER, 9, forced="Answer:")
    plan.says(" Frank Herbert")
    assert plan.answer == Answer("Frank Herbert", 0, StopReason.MAX_STEPS)
    plan = Driven(SelfAskMethod(max_steps=0))
    plan.asks(NO_NOTES, CallKind.ANSWER, 64, forced="Answer:")


REASON = (
    'Reason in a sentence or two, then reply "Answer: <short answer>": a name, a date, a number, '
    "yes or no."
)
NEXT = (
    "Write the next sentence of the reasoning: one fact from the passages. When it is complete, "
    'reply "Answer: <short answer>".'
)


def test_chain_of_thought_by_hand():
    plan = Driven(ChainOfThoughtMethod(thought_tokens=9))
    plan.asks(f"{REASON}\n{ASKED}", CallKind.THINK, 9)
    assert plan.move.parse("He wrote it.") == Malformed("no_answer")
    assert plan.move.parse("He. Answer:") == Malformed("empty_answer")
    assert plan.move.parse("He. Answer: a\nb") == Malformed("several_lines")
    plan.says("It is  his. Answer: no. Answer: Frank Herbert")
    assert plan.answer == Answer("Frank Herbert")
    assert plan.answer is not None
    assert plan.answer.start == len("It is  his. Answer: no. Answer:")
    assert plan.answer.thought == "It is his. Answer: no."


def test_ircot_by_hand():
    plan = Driven(IrcotMethod(max_steps=3, passages=2, kept=2, passage_words=8, thought_tokens=9))
    assert plan.move == Look(QUESTION.question, 2, 8)
    plan.send((DUNE_8, FILM))
    plan.asks(f"{NEXT}\n{FOUND}\n{ASKED}\nReasoning: none", CallKind.THINK, 9)
    assert plan.move.parse(" ") == Malformed("empty_thought")
    assert plan.move.parse("a\nb") == Malformed("several_lines")
    plan.says("Dune is a  novel.")
    assert plan.move == Look("Dune is a novel.", 2, 8)
    other = Passage("o", "Other", "More.")
    plan.send((DUNE_8, other))  # Dune is new again: the film is the oldest of three, and goes
    newest = "[1] Dune: Dune is a novel by Frank Herbert, who\n[2] Other: More."
    plan.asks(f"{NEXT}\n{newest}\n{ASKED}\nReasoning: Dune is a novel.", CallKind.THINK, 9)
    plan.says("He wrote it.")
    plan.send(())
    reasons = "Reasoning: Dune is a novel. He wrote it."
    plan.asks(f"{ANSWER}\n{newest}\n{ASKED}\n{reasons}", CallKind.ANSWER, 9, forced="Answer:")
    plan.says(" Frank Herbert")
    assert plan.answer == Answer("Frank Herbert", 0, StopReason.MAX_STEPS)
    assert [step.query for step in plan.steps] == [
        QUESTION.question,
        "Dune is a novel.",
        "He wrote it.",
    ]


def test_ircot_ends_with_an_answer():
    plan = Driven(IrcotMethod(passages=1, passage_words=8))
    plan.send((DUNE_8,))
    plan.says("Answer: Frank Herbert")
    assert plan.answer == Answer("Frank Herbert", stop_reason=StopReason.ANSWERED)


def test_iter_retgen_by_hand():
    plan = Driven(IterRetgenMethod(max_steps=2, passages=2, passage_words=8, thought_tokens=9))
    assert plan.move == Look(QUESTION.question, 2, 8)
    plan.send((DUNE_8, FILM))
    plan.asks(f"{REASON}\n{FOUND}\n{ASKED}", CallKind.THINK, 9)
    plan.says("A film. Answer: David Lynch")
    assert plan.move == Look(f"{QUESTION.question} A film. David Lynch", 2, 8)
    plan.send((FILM,))
    plan.asks(f"{REASON}\n[1] A film by David Lynch.\n{ASKED}", CallKind.THINK, 9)
    plan.says("Answer: Frank Herbert")
    assert plan.answer == Answer("Frank Herbert")
    assert len(plan.steps) == 2


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which film came out first, Alpha or The Beta?", "The Beta"),
        ("Who is older, A, B, or  C ?", "C"),
        ("Did Alpha or Beta win?", "Beta win"),
        ("Are Alpha and Beta both films?", "yes"),
        ("is it so", "yes"),
        ("Who wrote Dune?", ""),
        ("Which oration did he hold?", ""),
        ("What is the island of Orkney?", ""),
        ("", ""),
    ],
)
def test_the_guess_by_hand(question, answer):
    assert guess(question) == answer


def test_guessing_needs_no_model_and_a_title_one_search():
    steps: list[Step] = []
    with pytest.raises(StopIteration) as end:
        next(GuessMethod().plan(Question("q", "Is it so?"), steps))
    assert (end.value.value, steps) == (Answer("yes"), [])
    plan = Driven(GuessTitleMethod(passages=3))
    assert plan.move == Look(QUESTION.question, 3, 1)
    plan.send((DUNE, FILM, Passage("h", "Frank Herbert (writer)", "x")))
    assert plan.answer == Answer("Frank Herbert")  # Dune is in the question, the film has no title
    plan = Driven(GuessTitleMethod())
    plan.send((DUNE,))
    assert plan.answer == Answer("")


SOLVED = Solved((("who wrote it", "Dune is by Frank  Herbert."),), "Frank Herbert")


@pytest.mark.parametrize(
    ("name", "replies"),
    [
        ("direct", ["Answer: Frank Herbert"]),
        ("rag", ["Answer: Frank Herbert"]),
        ("chain-of-thought", ["Dune is by Frank Herbert. Answer: Frank Herbert"]),
        ("self-ask", ["Search: who wrote it", "Answer: Frank Herbert"]),
        ("ircot", ["Dune is by Frank Herbert.", "Answer: Frank Herbert"]),
        ("iter-retgen", ["Dune is by Frank Herbert. Answer: Frank Herbert"]),
    ],
)
def test_a_solved_question_is_shown_as_each_method_asks(name, replies):
    class Any1:
        def search(self, queries, k):
            return [[DUNE] for _ in queries]

    method, tokenizer = open_method({"name": name}), ScriptedTokenizer()
    two = [(QUESTION, SOLVED), (QUESTION, SOLVED)]
    examples = demonstrations(two, method, Any1(), tokenizer)  # pyright: ignore[reportArgumentType]
    turns = examples.turns[CallKind.THINK]
    said = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert said == [replies[0], replies[-1]]  # the first shows how to begin, the last how to end
    assert all("Question: Who wrote Dune (1)?" in turns[n]["content"] for n in (0, 2))


# --- the same by a rollout ---


class Shelf:
    """Finds what is prepared for a query, and keeps what it was asked."""

    def __init__(self, found: dict[str, Sequence[Passage]]):
        self.found, self.asked = found, list[tuple[str, int]]()

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.asked += [(query, k) for query in queries]
        return [list(self.found[query])[:k] for query in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        raise NotImplementedError

    def identity(self) -> str:
        return "shelf"


def chat(prompt: str, forced: str = "") -> str:
    return f"User: {prompt}\nAssistant: {forced}"


Script = list[tuple[str, str]]  # each chat that is to be seen, and its reply


@pytest.mark.parametrize(
    ("method", "script", "looks", "steps", "stop_reason"),
    [
        (DirectMethod(), [(chat(DIRECT, "Answer:"), " Frank Herbert")], [], [], "answered"),
        (
            RagMethod(passages=2, passage_words=8),
            [(chat(READ, "Answer:"), " Frank Herbert")],
            [(QUESTION.question, 2)],
            [Step(QUESTION.question, (DUNE, FILM))],
            "answered",
        ),
        (
            SelfAskMethod(passage_words=5),
            [
                (chat(NO_NOTES), "Search: who wrote it"),
                (chat(ONE_NOTE), "Search: and where?"),
                (chat(TWO_NOTES), "Answer: Frank Herbert"),
            ],
            [("who wrote it", 1), ("and where?", 1)],
            [NOTE, Step("and where?", ())],
            "answered",
        ),
        (
            SelfAskMethod(max_steps=2, passage_words=5),
            [
                (chat(NO_NOTES), "Search: who wrote it"),
                (chat(ONE_NOTE), "Search: and where?"),
                (chat(TWO_NOTES, "Answer:"), " Frank Herbert"),
            ],
            [("who wrote it", 1), ("and where?", 1)],
            [NOTE, Step("and where?", ())],
            "max_steps",
        ),
    ],
    ids=["direct", "rag", "self-ask", "self-ask, forced"],
)
def test_a_rollout_follows_the_plan(
    method: Method,
    script: Script,
    looks: list[tuple[str, int]],
    steps: list[Step],
    stop_reason: str,
):
    seen: list[str] = []

    def reply(text: str) -> str:
        seen.append(text)
        return script[len(seen) - 1][1]

    shelf = Shelf({QUESTION.question: (DUNE, FILM), "who wrote it": (DUNE, FILM), "and where?": ()})
    engine = ScriptedEngine(reply)
    (t,) = rollout([QUESTION], engine, shelf, method=method)
    assert seen == [text for text, _ in script]
    assert shelf.asked == looks
    assert list(t.steps) == steps
    assert (t.answer, t.stop_reason, t.method) == ("Frank Herbert", stop_reason, method.name)
    forced = script[-1][0].endswith("Answer:")
    assert t.answer_start == (0 if forced else len(engine.tokenizer.encode("Answer:")))
    assert [engine.tokenizer.decode(c.output_ids) for c in t.calls] == [r for _, r in script]


@pytest.mark.parametrize("name", ["direct", "rag", "chain-of-thought", "self-ask"])
def test_a_method_takes_45_lines_and_one_in_the_table(name: str):
    kind = type(open_method({"name": name}))
    file = Path(inspect.getfile(kind))
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 45
    module = f"exsearch.methods.{file.stem}"
    named = [
        line
        for other in file.parents[1].rglob("*.py")
        for line in other.read_text(encoding="utf-8").splitlines()
        if module in line
    ]
    assert named == [f'    "{name}": "{module}:{kind.__name__}",']


def test_settings_are_read_back():
    assert list(METHODS) == [
        "searcher", "direct", "rag", "chain-of-thought", "self-ask", "ircot", "iter-retgen",
        "guess", "guess-title",
    ]  # fmt: skip
    for method in (
        DirectMethod(9), RagMethod(2, 3, "query", 4), SelfAskMethod(1, 2, "start", 3),
        SearcherMethod(2, select=True), ChainOfThoughtMethod(4),
        IrcotMethod(1, 2, 3, 4, "query", 5), IterRetgenMethod(1, 2, 3, "query", 4),
        GuessMethod(), GuessTitleMethod(2),
    ):  # fmt: skip
        values = method_values(method)
        assert values == {"name": method.name, **to_plain(method)}
        assert open_method(json.loads(json.dumps(values))) == method
    assert open_method() == SearcherMethod()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "rga"}, "no method 'rga'; did you mean rag?"),
        ({"name": 3}, "method.name is 3, expected a method's name"),
        ({"name": "rag", "passage": 1}, "unknown key method.passage; did you mean method.passages"),
        ({"name": "rag", "passages": 0}, "passages is 0, expected 1 or more"),
        ({"name": "direct", "answer_tokens": 0}, "answer_tokens is 0, expected 1 or more"),
        ({"name": "self-ask", "max_steps": -1}, "max_steps is -1, expected 0 or more"),
        ({"name": "self-ask", "max_steps": "many"}, "method.max_steps: "),
    ],
)
def test_a_wrong_setting_is_one_line(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        open_method(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- on the command line ---

ANSWERED = {"contains": "Assistant: Answer:", "reply": " Great Ormond Street"}
SCRIPTS: dict[str, list[dict[str, str]]] = {
    "direct": [ANSWERED],
    "rag": [ANSWERED],
    "self-ask": [
        {"contains": "Notes:\nnone", "reply": "Search: Peter Pan"},
        {"contains": "Notes:\n1. Peter Pan", "reply": "Answer: Great Ormond Street"},
    ],
}


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    def run_command(*args: object) -> Any:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="exsearch")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    return run_command


@pytest.fixture(scope="session")
def index(run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods") / "index"
    run("index", sample_path("corpus"), "--out", folder, "--json")
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_packaged_sample_by_each_method(
    run: Callable[..., Any], index: Path, tmp_path: Path, name: str
):
    script, out = tmp_path / "script.jsonl", tmp_path / "out"
    script.write_text("".join(json.dumps(rule) + "\n" for rule in SCRIPTS[name]))
    summary = run(
        "evaluate", "--questions", "sample:test", "--limit", 4, "--index", index, "--method", name,
        "--model", script, "--engine", "scripted", "--out", out, "--json",
    )  # fmt: skip
    assert (summary["n"], summary["em"]) == (4, 0.25)  # the first question's answer, to each
    assert summary["stop_reasons"] == {"answered": 4}
    searches = 0 if name == "direct" else 1
    assert summary["steps"] == searches
    assert summary["passages_a_search"] == {"direct": 0, "rag": 5, "self-ask": 1}[name]
    assert json.loads((out / "settings.json").read_text())["method"]["name"] == name
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    for row in rows:
        query = row["question"] if name == "rag" else "Peter Pan"
        assert row["queries"] == [query] * searches
    traces = (out / "trajectories.jsonl").read_text().splitlines()
    assert {json.loads(line)["method"] for line in traces} == {name}
