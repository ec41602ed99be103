"""The items of a response in OpenAI's form, and the events by which a stream tells of them.

A response that is told at once is what its stream adds up to. It reads a log and asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field

from exsearch.agent.events import Event, EventKind
from exsearch.records import StopReason
from exsearch.serving.links import url_citation
from exsearch.serving.log import QuestionLog
from exsearch.serving.refusals import Refusal, failure_of

Status = Literal["in_progress", "completed", "incomplete", "failed"]
_CODES = {422: "invalid_prompt", 429: "rate_limit_exceeded"}  # the API knows a few for responses


class Result(BaseModel):
    """A passage that a search found."""

    file_id: str
    filename: str
    score: float | None
    text: str
    attributes: dict[str, str] | None = None


class SearchCall(BaseModel):
    """A search."""

    type: Literal["file_search_call"] = "file_search_call"
    id: str
    status: Literal["in_progress", "completed", "failed"]
    queries: list[str]
    results: list[Result] | None = None


class Summary(BaseModel):
    """A part of what was recorded."""

    type: Literal["summary_text"] = "summary_text"
    text: str


class Reasoning(BaseModel):
    """A fact that was recorded."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    summary: list[Summary]


class UrlCitation(BaseModel):
    """Where in the text a passage's number stands."""

    type: Literal["url_citation"] = "url_citation"
    start_index: int
    end_index: int
    title: str
    url: str


class OutputText(BaseModel):
    """The text of the answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[UrlCitation]
    logprobs: list[str] = []


class Message(BaseModel):
    """The message that answers."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class InputDetails(BaseModel):
    """Where the tokens that were read came from."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(BaseModel):
    """What the tokens that were written were for."""

    reasoning_tokens: int = 0


class Usage(BaseModel):
    """Tokens that the engine read and wrote, over all calls."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class Failure(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class Incomplete(BaseModel):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


Item = Annotated[SearchCall | Reasoning | Message, Field(discriminator="type")]


class Reply(BaseModel):
    """A response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    error: Failure | None = None
    incomplete_details: Incomplete | None = None
    instructions: None = None
    metadata: dict[str, str] = {}
    model: str
    output: list[Item] = []
    parallel_tool_calls: bool = False
    temperature: None = None
    tool_choice: Literal["auto"] = "auto"
    tools: list[str] = []
    top_p: None = None
    usage: Usage | None = None


class Telling:
    """What has been told of a question so far.

    Args:
        request: The request that is answered.
        log: The question's log.

    Attributes:
        reply: The response as far as it has come.
    """

    def __init__(self, request: Request, log: QuestionLog):
        self._request, self._log = request, log
        self.reply = Reply(
            id=f"resp_{log.id}",
            created_at=int(log.began),
            status="in_progress",
            model=request.app.state.config.model,
        )

    def begin(self) -> Iterator[dict[str, Any]]:
        """The events before the first of the log."""
        for kind in ("created", "in_progress"):
            yield self._whole(kind)

    def take(self, event: Event) -> Iterator[dict[str, Any]]:
        """Take in an event of the log; gives the stream's events that tell of it."""
        if event.kind is EventKind.SEARCH:
            yield from self._search(event.text)
        elif event.kind is EventKind.PASSAGES:
            yield from self._found(event)
        elif event.kind is EventKind.EVIDENCE and event.step and event.step.evidence:
            yield from self._record(event.step.evidence.text)

    def end(self) -> Iterator[dict[str, Any]]:
        """Take in the end of the log; gives the events that tell of it."""
        trajectory = self._log.trajectory
        if trajectory:
            read, written = trajectory.prompt_tokens, trajectory.output_tokens
            self.reply.usage = Usage(
                input_tokens=read, output_tokens=written, total_tokens=read + written
            )
        if failure := failure_of(self._log, "input"):
            yield from self._fail(failure)
            return
        cut = trajectory is not None and trajectory.stop_reason is StopReason.MAX_TOKENS
        status = "incomplete" if cut else "completed"
        yield from self._answer(status)
        self.reply.status = status
        self.reply.incomplete_details = Incomplete() if cut else None
        yield self._whole(status)

    def _search(self, query: str) -> Iterator[dict[str, Any]]:
        call = SearchCall(id=self._name("fs"), status="in_progress", queries=[query])
        yield self._add(call)
        yield self._of("file_search_call.in_progress")
        yield self._of("file_search_call.searching")

    def _found(self, event: Event) -> Iterator[dict[str, Any]]:
        call = self.reply.output[-1]
        assert isinstance(call, SearchCall)
        call.status = "completed"
        call.results = [
            Result(file_id=p.id, filename=p.title or p.id, score=p.score, text=p.text)
            for p in event.passages
        ]
        yield self._of("file_search_call.completed")
        yield self._done()

    def _record(self, text: str) -> Iterator[dict[str, Any]]:
        item = Reasoning(id=self._name("rs"), summary=[])
        yield self._add(item)
        item.summary = [Summary(text=text)]
        at = {"summary_index": 0}
        empty, whole = Summary(text="").model_dump(), Summary(text=text).model_dump()
        yield self._of("reasoning_summary_part.added", **at, part=empty)
        yield self._of("reasoning_summary_text.delta", **at, delta=text)
        yield self._of("reasoning_summary_text.done", **at, text=text)
        yield self._of("reasoning_summary_part.done", **at, part=whole)
        yield self._done()

    def _answer(self, status: Literal["completed", "incomplete"]) -> Iterator[dict[str, Any]]:
        answer, at = self._log.answer, {"content_index": 0}
        part = OutputText(text="", annotations=[])
        message = Message(id=self._name("msg"), status="in_progress", content=[])
        yield self._add(message)
        message.content = [part]
        yield self._of("content_part.added", **at, part=part.model_dump())
        part.text = answer.text
        yield self._of("output_text.delta", **at, delta=part.text, logprobs=[])
        for number, mark in enumerate(answer.marks):
            citation = UrlCitation(**url_citation(self._request, mark))
            part.annotations.append(citation)
            added = {"annotation_index": number, "annotation": citation.model_dump()}
            yield self._of("output_text.annotation.added", **at, **added)
        yield self._of("output_text.done", **at, text=part.text, logprobs=[])
        yield self._of("content_part.done", **at, part=part.model_dump())
        message.status = status
        yield self._done()

    def _fail(self, failure: Refusal) -> Iterator[dict[str, Any]]:
        output = self.reply.output
        if output and isinstance(call := output[-1], SearchCall) and call.results is None:
            call.status = "failed"
            yield self._done()
        self.reply.status = "failed"
        code = _CODES.get(failure.status, "server_error")
        self.reply.error = Failure(code=code, message=failure.message)
        yield self._whole("failed")

    def _name(self, prefix: str) -> str:
        return f"{prefix}_{self._log.id}_{len(self.reply.output)}"

    def _add(self, item: Item) -> dict[str, Any]:
        self.reply.output.append(item)
        return self._of_item("output_item.added")

    def _done(self) -> dict[str, Any]:
        return self._of_item("output_item.done")

    def _of_item(self, kind: str) -> dict[str, Any]:
        index = len(self.reply.output) - 1
        item = self.reply.output[-1].model_dump()
        return {"type": f"response.{kind}", "output_index": index, "item": item}

    def _of(self, kind: str, **facts: Any) -> dict[str, Any]:
        index, id_ = len(self.reply.output) - 1, self.reply.output[-1].id
        return {"type": f"response.{kind}", "item_id": id_, "output_index": index, **facts}

    def _whole(self, kind: str) -> dict[str, Any]:
        return {"type": f"response.{kind}", "response": self.reply.model_dump()}
