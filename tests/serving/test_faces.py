"""A citation is the same in every face: a span of a retrieved passage, at a URL that opens.

All faces tell one log: a server's questions are asked once, and every face gets the same log.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
from answer_server import answer_server
from mcp import Client

from exsearch.agent.cited import CitedAnswer
from exsearch.engines.scripted import ScriptedEngine
from exsearch.records import Passage
from exsearch.retrievers.bm25 import Bm25Retriever
from exsearch.searcher import Searcher
from exsearch.serving import ServeConfig
from exsearch.serving import app as app_module
from exsearch.serving.faces.mcp import mcp_server
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import Questions
from exsearch.show.traces import answer_object

QUESTIONS = 300
BASE = "http://127.0.0.1"
KINDS = ("exact", "normalised", "overlap", "unsupported", "two steps")


def passage(n: int) -> Passage:
    bee = "\N{HONEYBEE} " if n % 2 else ""
    text = f"{bee}The mill of Fenwick{n} was built by Ada \U0001d509{n}, of Wales, in {1400 + n}."
    url = f"https://mills.example/{n}?a=1#b" if n % 4 == 0 else ""
    return Passage(f"p/{n} ä?", f"{bee}Mill {n}", f"{text} Its builder loved the sea.", url=url)


def question(n: int) -> str:
    return f"Who built mill number {n}?" if n % 50 else f"Mumble of mill number {n}?"


def script(n: int) -> list[tuple[str, str]]:
    """What the model writes for a question: one search or two, facts of all kinds, an answer."""
    bee = "\N{HONEYBEE} " if n % 2 else ""
    fact = {
        "exact": f"{bee}The mill of Fenwick{n} was built by Ada \U0001d509{n}",
        "normalised": f"the mill of FENWICK{n} was built by Ada \U0001d509{n} of Wales",
        "overlap": f"Ada \U0001d509{n} built the mill of Fenwick{n}, in {1400 + n}",
        "unsupported": f"Fenwick{n} has had a lord mayor since Tuesday",
        "two steps": f"The mill of Fenwick{n}",
    }[KINDS[n % 5]]
    answer = ("Wales", "yes", f"Mallory{n}", f"in {1400 + n}", "the sea")[n % 7 % 5]
    asked, found = f"{question(n)}\nNotes:", f"Query: Fenwick{n} "
    if not n % 50:
        return [(asked, "Mumble.")]
    rules = [(f"{found}mill", f"[1] {fact}"), (f"{asked}\nnone", f"Search: Fenwick{n} mill")]
    if KINDS[n % 5] == "two steps":
        second = f"Fenwick{n}, built by Ada, loved the sea of Wales"
        rules += [(f"{found}sea", f"[1] {second}"), (second, f"Answer: {answer}")]
        return [*rules, (asked, f"Search: Fenwick{n} sea")]
    return [*rules, (asked, f"Answer: {answer}")]


class Told(NamedTuple):
    """What a face tells: the text, the place and the address of each number, the spans.

    The text, the places or the addresses are None where a face has none.
    """

    text: str | None
    places: list[tuple[int, int]] | None
    urls: list[str] | None
    spans: list[tuple[str, int, int, str]] | None


def expected(answer: CitedAnswer, base: str) -> Told:
    cited = [mark.citation for mark in answer.marks]
    return Told(
        answer.text,
        [(mark.start, mark.end) for mark in answer.marks],
        [url_of(mark.source.passage, base) for mark in answer.marks],
        [(c.passage_id, c.start, c.end, c.match.value) for c in cited],
    )


def url_of(passage: Passage, base: str = BASE) -> str:
    return passage.url or own_url(passage.id, base)


def own_url(id: str, base: str = BASE) -> str:
    return f"{base}/passages/{quote(id, safe='')}"


def events(reply: httpx2.Response) -> list[Any]:
    assert reply.status_code == 200, reply.text
    blocks = [block.rpartition("data: ")[2] for block in reply.text.split("\n\n")]
    return [json.loads(block) for block in blocks if block.startswith("{")]


def annotated(text: str, annotations: list[dict[str, Any]]) -> Told:
    """Of OpenAI's two APIs."""
    places = [(one["start_index"], one["end_index"]) for one in annotations]
    return Told(text, places, [one["url"] for one in annotations], None)


def cited_in_units(text: str, citations: list[dict[str, Any]]) -> Told:
    """Of the two streams that count as JavaScript does."""

    def signs(units: int) -> int:
        return len(text.encode("utf-16-le")[: 2 * units].decode("utf-16-le"))

    spans = []
    for one in citations:
        facts = one["source"]["providerMetadata"]["exsearch"]
        spans.append((facts["passageId"], facts["start"], facts["end"], facts["match"]))
    places = [(signs(one["startIndex"]), signs(one["endIndex"])) for one in citations]
    return Told(text, places, [one["source"]["url"] for one in citations], spans)


def claimed(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The citations of claims in the order of the text: the answer's, then the facts'."""
    claims = value["claims"]
    ordered = [*claims[-1:], *claims[:-1]] if value["answer"] else claims
    return [cited for claim in ordered for cited in claim["citations"]]


def spans_of(citations: list[dict[str, Any]]) -> list[tuple[str, int, int, str]]:
    return [(c["passage_id"], c["start"], c["end"], c["match"]) for c in citations]


def terminal(value: dict[str, Any], base: str) -> Told:
    """Of `ask --json`, which knows of no server: a passage has the corpus's address or none."""
    urls = {p["id"]: p["url"] for step in value["steps"] for p in step["passages"]}
    cited = claimed(value)
    found = [urls[c["passage_id"]] or own_url(c["passage_id"], base) for c in cited]
    return Told(None, None, found, spans_of(cited))


def by_mcp(value: dict[str, Any]) -> Told:
    cited = claimed(value)
    return Told(value["text"], None, [c["url"] for c in cited], spans_of(cited))


async def over_http(http: httpx2.AsyncClient, asked: str) -> dict[str, Told]:
    """What each face of a server tells of a question."""

    async def post(path: str, **body: Any) -> httpx2.Response:
        return await http.post(path, json=body)

    model = (await http.get("/v1/models")).json()["data"][0]["id"]
    user: dict[str, Any] = {"id": "m", "role": "user"}
    chat = {"model": model, "messages": [{"role": "user", "content": asked}]}
    told: dict[str, Told] = {}

    message = (await post("/v1/chat/completions", **chat)).json()["choices"][0]["message"]
    notes = [one["url_citation"] for one in message["annotations"]]
    told["chat"] = annotated(message["content"], notes)
    chunks = events(await post("/v1/chat/completions", **chat, stream=True))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    notes = [one["url_citation"] for delta in deltas for one in delta.get("annotations", ())]
    told["chat stream"] = annotated(text, notes)

    reply = (await post("/v1/responses", model=model, input=asked)).json()
    part = reply["output"][-1]["content"][0]
    told["responses"] = annotated(part["text"], part["annotations"])
    parts = events(await post("/v1/responses", model=model, input=asked, stream=True))
    notes = [p["annotation"] for p in parts if p["type"].endswith("annotation.added")]
    text = "".join(p["delta"] for p in parts if p["type"].endswith("output_text.delta"))
    told["responses stream"] = annotated(text, notes)
    whole = parts[-1]["response"]["output"][-1]["content"][0]
    assert annotated(whole["text"], whole["annotations"]) == told["responses stream"]

    messages = [user | {"parts": [{"type": "text", "text": asked}]}]
    of = {part["type"]: part for part in events(await post("/ui/chat", messages=messages))}
    told["ui"] = cited_in_units(of["text-delta"]["delta"], of["text-end"]["citations"])

    run = {"threadId": "t", "runId": "r", "messages": [user | {"content": asked}]}
    of = {part["type"]: part for part in events(await post("/ag-ui", **run))}
    cited = of["CUSTOM"]["value"]["citations"]
    told["ag-ui"] = cited_in_units(of["TEXT_MESSAGE_CONTENT"]["delta"], cited)

    trace = events(await post("/ask", question=asked))[-1]["trace"]
    marks, addresses = trace["marks"], {s["number"]: s["url"] for s in trace["sources"]}
    places = [(mark["start"], mark["end"]) for mark in marks]
    spans = [(mark["passage_id"], *mark["span"], mark["match"]) for mark in marks]
    told["page"] = Told(trace["text"], places, [addresses[m["source"]] for m in marks], spans)
    return told


def same(told: dict[str, Told], right: Told) -> None:
    """Every face tells what is right, in all that it tells."""
    for face, own in told.items():
        given = {name: value for name, value in own._asdict().items() if value is not None}
        assert given == {name: right._asdict()[name] for name in given}, face


class Once(Questions):
    """Questions that are asked once: who asks again gets the same log."""

    logs: dict[str, QuestionLog]

    def ask(self, question: str) -> QuestionLog:
        self.logs = getattr(self, "logs", {})
        if question not in self.logs:
            self.logs[question] = super().ask(question)
        return self.logs[question]


def test_every_citation_of_300_questions_is_the_same_in_every_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app_module, "Questions", Once)
    Bm25Retriever.build([passage(n) for n in range(QUESTIONS)], tmp_path / "index", progress=False)
    engine = ScriptedEngine([rule for n in range(QUESTIONS) for rule in script(n)])
    seen: Counter[str] = Counter()

    async def all_faces() -> None:
        with Searcher(engine, Bm25Retriever.open(tmp_path / "index")) as searcher:
            app, questions = app_module.make_app(searcher, ServeConfig("m"))
            assert isinstance(questions, Once)
            server = mcp_server(questions, lambda _, id: own_url(id))
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE)
            async with http, Client(server) as mcp:
                for n in range(QUESTIONS):
                    told = await over_http(http, question(n))
                    result = await mcp.call_tool("ask", {"question": question(n)})
                    told["mcp"] = by_mcp(result.structured_content or {})
                    log = questions.logs[question(n)]
                    assert log.trajectory is not None and len(told) == 8
                    values = json.loads(json.dumps(answer_object(log.trajectory)))
                    told["terminal"] = terminal(values, BASE)
                    same(told, expected(log.answer, BASE))
                    await are_spans_of_what_was_retrieved(http, log, seen)

    asyncio.run(all_faces())
    assert min(seen[kind] for kind in ("exact", "normalised", "overlap", "unsupported")) > 30
    assert seen["own url"] > 30 and seen["two"] > 30 and seen["no answer"] == QUESTIONS // 50


async def are_spans_of_what_was_retrieved(
    http: httpx2.AsyncClient, log: QuestionLog, seen: Counter[str]
) -> None:
    assert log.trajectory is not None
    retrieved = {p.id: p for step in log.trajectory.steps for p in step.passages}
    for mark in log.answer.marks:
        cited = mark.citation
        found = retrieved[cited.passage_id]
        reply = await http.get(own_url(found.id))
        assert reply.status_code == 200 and reply.json()["url"] == url_of(found)
        span = reply.json()["text"][cited.start : cited.end]
        assert span and span == found.text[cited.start : cited.end]
        seen.update([cited.match.value, *(["own url"] if found.url else [])])
    seen["unsupported"] += sum(not claim.supported for claim in log.answer.claims)
    seen["two"] += len(log.trajectory.steps) == 2
    seen["no answer"] += not log.trajectory.answer


def test_a_real_server_and_the_command_line_tell_the_same(tmp_path: Path):
    numbers = (4, 7, 11, 13, 50)
    rules = [{"contains": c, "reply": r} for n in numbers for c, r in script(n)]
    lines = "".join(f"{json.dumps(rule)}\n" for rule in rules)
    (tmp_path / "script.jsonl").write_text(lines, encoding="utf-8")
    Bm25Retriever.build([passage(n) for n in range(60)], tmp_path / "index", progress=False)

    async def all_faces(address: str, n: int) -> tuple[dict[str, Told], dict[str, Any]]:
        async with httpx2.AsyncClient(base_url=address) as http:
            told = await over_http(http, question(n))
            trace = (await http.get("/traces")).json()["traces"][0]["id"]
            trace = (await http.get(f"/traces/{trace}")).json()
        async with Client(f"{address}/mcp") as mcp:
            result = await mcp.call_tool("ask", {"question": question(n)})
            told["mcp"] = by_mcp(result.structured_content or {})
        return told, trace

    with answer_server(tmp_path) as server:
        for n in numbers:
            told, trace = asyncio.run(all_faces(server.address, n))
            command = [sys.executable, "-m", "exsearch", "ask", question(n), "--json"]
            options = ["--engine", "scripted", "--model", tmp_path / "script.jsonl"]
            said = subprocess.run(
                [*command, *map(str, options), "--index", str(tmp_path / "index")],
                capture_output=True,
                text=True,
            )
            told["terminal"] = terminal(json.loads(said.stdout), server.address)
            same(told, told["page"])
            passages = {p["id"]: p for step in trace["steps"] for p in step["passages"]}
            for id, start, end, _ in told["page"].spans or ():
                opened = httpx2.get(own_url(id, server.address))
                assert opened.status_code == 200
                span = opened.json()["text"][start:end]
                assert span and span == passages[id]["text"][start:end]
