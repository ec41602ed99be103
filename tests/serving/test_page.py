"""The page is plain files that run nothing else, and its data are all that is known of a question.

`tests/clients/test_page_browser.py` uses it in a real browser.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest
from answer_server import ANSWER, FACT, PASSAGES, QUESTION

from exsearch.agent.events import Event, EventKind
from exsearch.errors import RetrieverError
from exsearch.records import CallKind, Evidence, Question, Step, StopReason, Trajectory
from exsearch.serving.log import QuestionLog
from exsearch.serving.traces import trace_of_log, trace_of_trajectory
from started_server import StartedServer

FILES = {
    "/": "text/html",
    "/page/style.css": "text/css",
    "/page/script.js": "text/javascript",
    "/page/trace.js": "text/javascript",
    "/page/icon.svg": "image/svg+xml",
}


def get(server: StartedServer, path: str, **headers: str) -> httpx2.Response:
    return httpx2.get(f"{server.address}{path}", headers=headers)


def ask(server: StartedServer, question: str = QUESTION) -> list[dict[str, Any]]:
    """What the page is told of a question."""
    reply = httpx2.post(f"{server.address}/ask", json={"question": question})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = reply.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


@pytest.mark.parametrize("path", FILES)
def test_its_files_are_served(server, path):
    reply = get(server, path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == f"{FILES[path]}; charset=utf-8"
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    again = get(server, path, **{"if-none-match": reply.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert get(server, path, **{"if-none-match": '"other"'}).status_code == 200


class _Page(HTMLParser):
    """What a page loads, and what in it would run or style by itself."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        for name, value in attrs:
            if name in ("src", "href", "action") and not (value or "").startswith("#"):
                self.loads.append(value or "")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


def test_the_search_for_inline_code_finds_it():
    found = _Page('<a onclick="x" style="y" href="http://z"><script>f()</script><style>b</style>')
    assert found.inline == ["a onclick", "a style", "f()", "b"] and found.loads == ["http://z"]


def test_it_holds_no_inline_code_and_loads_its_own_files_only(server):
    page = _Page(get(server, "/").text)
    assert page.inline == []
    assert set(page.loads) < set(FILES) and len(page.loads) == 3
    for path in FILES:
        text = get(server, path).text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|url\(|@import", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_a_question_is_told_as_it_goes_and_whole_at_the_end(server):
    told = ask(server)
    kinds = [event["kind"] for event in told]
    assert kinds == [
        *("asked", "begun", "search", "passages", "begun", "evidence"),
        *("begun", "answer", "end", "trace"),
    ]
    assert told[2]["text"] == "harbour builder"
    assert told[3]["passages"][0]["text"] == PASSAGES[0].text
    assert told[5]["evidence"] == {"text": FACT, "passage_ids": [PASSAGES[0].id]}
    times = [event["at"] for event in told[1:-1]]
    assert times == sorted(times)
    trace = told[-1]["trace"]
    assert trace == get(server, f"/traces/{told[0]['id']}").json()


def test_a_trace_holds_the_answer_with_spans_that_fit(server):
    trace = ask(server)[-1]["trace"]
    assert trace["ended"] and trace["answer"] == ANSWER and trace["stop_reason"] == "answered"
    assert [(claim["kind"], claim["text"]) for claim in trace["claims"]] == [
        ("answer", ANSWER),
        ("fact", FACT),
    ]
    (source,) = trace["sources"]
    assert source["id"] == PASSAGES[0].id and source["sentence"] in PASSAGES[0].text
    assert httpx2.get(source["url"]).json()["text"] == PASSAGES[0].text
    for mark in trace["marks"]:
        assert trace["text"][mark["start"] : mark["end"]] == f"[{mark['source']}]"
    for claim in trace["claims"]:
        for cited in claim["citations"]:
            start, end = cited["span"]
            assert PASSAGES[0].text[start:end] == claim["text"]
            assert cited["match"] in ("exact", "normalised")
    (step,) = trace["steps"]
    assert [passage["id"] for passage in step["passages"]] == [PASSAGES[0].id]
    assert step["times"].keys() == {"began", "searched", "found", "done"}
    assert list(step["times"].values()) == sorted(step["times"].values())


def test_traces_are_listed_newest_first(server):
    ids = [ask(server, question)[0]["id"] for question in (QUESTION, "Mumble", QUESTION)]
    rows = get(server, "/traces").json()["traces"]
    assert [row["id"] for row in rows[:3]] == ids[::-1]
    assert rows[0].items() >= {"question": QUESTION, "answer": ANSWER, "outcome": None}.items()
    assert rows[1].items() >= {"question": "Mumble", "answer": "", "outcome": "none"}.items()


def test_what_can_not_be_asked_or_found_is_refused(server):
    for value in ({}, {"question": 3}, {"question": " "}, {"question": "x", "model": "y"}):
        reply = httpx2.post(f"{server.address}/ask", json=value)
        assert reply.status_code == 400 and reply.json()["error"]["param"]
    reply = get(server, "/traces/nothing")
    assert reply.status_code == 404 and "nothing" in reply.json()["error"]["message"]


def test_a_question_under_way_shows_the_steps_so_far():
    log = QuestionLog("q", QUESTION)

    def tell(kind: EventKind, after: float, **facts: Any) -> None:
        log.tell(Event(kind, 0, "q#0", log.began + after, **facts))

    step = Step("harbour", PASSAGES[:1], evidence=Evidence(FACT, (PASSAGES[0].id,)))
    tell(EventKind.BEGUN, 0.5, call=0, action=CallKind.THINK)
    tell(EventKind.BEGUN, 0.75, call=0, action=CallKind.THINK)  # tried again
    tell(EventKind.SEARCH, 1, text="harbour")
    tell(EventKind.PASSAGES, 2, passages=PASSAGES[:1])
    tell(EventKind.BEGUN, 2, call=1, action=CallKind.RECORD)
    tell(EventKind.EVIDENCE, 3, step=step)
    trace = trace_of_log(log, lambda passage: f"http://here/{passage.id}")
    assert not trace["ended"] and trace["claims"] == [] and trace["seconds"] is None
    (shown,) = trace["steps"]
    assert shown["times"] == {"began": 0.5, "searched": 1, "found": 2, "done": 3}
    assert shown["passages"][0]["url"] == f"http://here/{PASSAGES[0].id}"
    log.end(None, RetrieverError("down"))
    trace = trace_of_log(log, lambda passage: None)
    assert trace["ended"] and trace["error"] == "down" and trace["outcome"] == "none"


def saved(answer: str, *answers: str) -> Trajectory:
    question = Question("q7", QUESTION, answers, supporting=(PASSAGES[0].id,))
    step = Step("harbour", PASSAGES, evidence=Evidence(FACT, (PASSAGES[0].id,)))
    reason = StopReason.ANSWERED if answer else StopReason.MALFORMED
    return Trajectory(question, (step,), (), answer, reason, turn_scores=(-3.0, -1.5))


def test_a_saved_trajectory_has_the_same_form(server):
    trace = trace_of_trajectory(saved(ANSWER, ANSWER))
    assert trace["steps"][0]["gain"] == 1.5 and trace["steps"][0]["times"] is None
    assert [p["supporting"] for p in trace["steps"][0]["passages"]] == [True, False]
    asked = ask(server)[-1]["trace"]
    assert trace.keys() - asked.keys() == {"weight"} and asked.keys() < trace.keys()
    for name in ("steps", "claims", "sources", "marks"):
        assert trace[name][0].keys() == asked[name][0].keys()


@pytest.mark.parametrize(
    ("answer", "answers", "outcome"),
    [
        (ANSWER, (ANSWER,), "right"),
        ("Bert", (ANSWER,), "wrong"),
        ("", (ANSWER,), "none"),
        (ANSWER, (), None),
    ],
)
def test_an_outcome_is_told_where_it_is_known(answer, answers, outcome):
    assert trace_of_trajectory(saved(answer, *answers))["outcome"] == outcome
