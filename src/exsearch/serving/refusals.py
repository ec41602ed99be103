"""A refusal is what a client is told in place of an answer, in the form of OpenAI's API.

Clients repeat what fails with a status of 500 or above, so a failure that will come again has a
status below, or says in a header that it is not to be repeated.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from exsearch.errors import ExSearchError, RetrieverError
from exsearch.records import StopReason
from exsearch.serving.log import QuestionLog
from exsearch.serving.questions import BadQuestionError, BusyError, ClosingError, GivenUpError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_NO_REPEAT = {"x-should-retry": "false"}  # which OpenAI's clients obey


class ErrorValues(BaseModel):
    """An error as OpenAI's API has it (`Refusal`)."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The body of a refusal."""

    error: ErrorValues


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's schema says of the refusals that it may answer with.

    Args:
        statuses: Their HTTP statuses.
    """
    phrases = {status: HTTPStatus(status).phrase for status in statuses}
    return {s: {"model": ErrorReply, "description": phrase} for s, phrase in phrases.items()}


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
        message: What is wrong, and what to do, on one line.
        param: The field of the request that is wrong; None where it is none.
        code: A word for programs; None where there is none.
        headers: Headers of the reply.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    @property
    def values(self) -> dict[str, str | None]:
        """The error as OpenAI's API has it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, kind)
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}

    @property
    def response(self) -> Response:
        """The error as an HTTP response."""
        body = json.dumps({"error": self.values})
        return Response(body, self.status, self.headers, "application/json")


def refusal_of(error: ExSearchError, param: str | None = None) -> Refusal:
    """What a client is told of an error that kept a question from being asked or answered.

    Args:
        error: The error.
        param: The field of the request that holds the question.
    """
    said = str(error)
    match error:
        case BadQuestionError():
            return Refusal(400, said, param=param, code="bad_question")
        case BusyError():
            return Refusal(429, said, code="busy", headers={"Retry-After": "1"})
        case ClosingError():
            return Refusal(503, said, code="closing", headers={"Retry-After": "5"})
        case GivenUpError():
            return Refusal(504, said, code="given_up", headers=_NO_REPEAT)
        case RetrieverError():
            return Refusal(502, said, code="search_failed")
    return Refusal(500, said, code="failed")


def failure_of(log: QuestionLog, param: str | None = None) -> Refusal | None:
    """What a client is told of a question that ended without an answer of the model; else None.

    A model that wrote nothing usable is no failure: its reply says that there is no answer.

    Args:
        log: The log of a question that has ended.
        param: The field of the request that holds the question.
    """
    if log.error is None:
        return None
    reason = log.trajectory.stop_reason if log.trajectory else None
    if reason is StopReason.RETRIEVER_ERROR:
        return Refusal(502, str(log.error), code="search_failed")
    if reason is StopReason.ENGINE_ERROR:  # the same question will fail again
        return Refusal(422, str(log.error), param=param, code="model_failed")
    return refusal_of(log.error, param)
