"""A request of OpenAI's API is read strictly: nothing unknown, nothing coerced, nothing ambiguous.

It holds what the API's faces have in common; what each one asks for besides is in `faces`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal, NoReturn

from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from exsearch.serving.refusals import Refusal, documented

FAILURES = documented(400, 401, 403, 413, 422, 429, 500, 502, 503, 504)  # of a question
STREAMED: dict[int | str, dict[str, Any]] = {  # of a question that is told by server-sent events
    **FAILURES,
    200: {"content": {"text/event-stream": {}}},
}


class Strict(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(Strict):
    """A text within a message; one that was answered may come back with all that was told of it."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str = ""
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


def text_or_list(value: Any) -> str:
    """The tag of a text or of a list; in parentheses, as a tag must be no field's name."""
    return "(list)" if isinstance(value, list) else "(text)"


Texts = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[TextPart], Tag("(list)")],
    Discriminator(text_or_list),
]


class Asked(Strict):
    """What both of OpenAI's APIs take; all but the model, `stream` and `store` changes nothing."""

    model: str
    stream: bool | None = None
    store: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    user: str | None = None


def _off(value: bool) -> bool:
    if value:
        raise ValueError("can't be honoured here")
    return value


Off = Annotated[bool, AfterValidator(_off), Field(json_schema_extra={"const": False})]
Count = Annotated[int, Field(ge=1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]


class PlainText(Strict):
    """The one format of an answer."""

    type: Literal["text"]


class StrictRoute(APIRoute):
    """A route whose bodies mean the same to every reader of JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body's value.

        Raises:
            HTTPException: it is no JSON, or JSON that readers disagree about.
        """
        try:
            value = json.loads(
                await self.body(), object_pairs_hook=_object, parse_constant=_no_number
            )
            json.dumps(value, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from None
        except UnicodeError:
            raise HTTPException(400, "the body is no text: it holds half a character") from None
        except ValueError:
            raise HTTPException(400, "the body holds a number with too many digits") from None
        except RecursionError:
            raise HTTPException(400, "the body is nested too deeply") from None
        return value


def check_model(request: Request, model: str) -> None:
    """Make sure that a request asks for the model that is served.

    Raises:
        Refusal: it asks for another one.
    """
    served = request.app.state.config.model
    if model != served:
        raise Refusal(
            404,
            f"the model {model[:100]!r} is not served; ask for {served!r}",
            param="model",
            code="model_not_found",
        )


def plain_text(content: str | list[TextPart] | None) -> str:
    """The text of a message, its parts on lines of their own."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise HTTPException(400, "the body has an object with the same name twice")
    return value


def _no_number(name: str) -> NoReturn:
    raise HTTPException(400, f"the body is not JSON: {name} is no number")
