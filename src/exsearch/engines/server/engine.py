"""The openai engine asks any server that speaks OpenAI's chat protocol; it is for sampling only.

Such a server takes and gives text, without token ids, so what it writes can be evaluated and read
but neither weighed nor trained on. The HTTP is `endpoint`'s; nothing here knows what is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from exsearch.engines.base import Generation, Request, Sampling
from exsearch.engines.config import ModelConfig
from exsearch.engines.controls import for_servers
from exsearch.engines.server.config import EndpointConfig
from exsearch.engines.server.endpoint import ChatEndpoint, RefusedError, run_to_end
from exsearch.engines.session import InTurns
from exsearch.engines.text import TextTokenizer
from exsearch.errors import EngineError, ModelServerError

logger = logging.getLogger(__name__)

_REFUSALS = 5  # before the first answer: then it is not the requests, it is the settings
_SEEDS = 2**31
_LIMITS = ("max_tokens", "max_completion_tokens")


class OpenAIEngine(InTurns):
    """`Engine` over `POST {base_url}/chat/completions`.

    A prompt's ids are private to this process (`TextTokenizer`); the server gets the messages that
    they stand for. A reply that must begin in a given way (the forced answer frame) is asked for in
    the last user turn, since few servers continue an assistant's turn.

    Until the server has answered once, requests go one by one, so that a wrong address or key costs
    one request; then `config.concurrency` are under way at once.

    Args:
        config: The address, the model's name, the key's variable, and how the model is asked.
        system_prompt: A system turn before every chat; None sends none.
        template_kwargs: Variables for the chat template, sent as `chat_template_kwargs`, which
            vLLM, SGLang and llama.cpp take.

    Raises:
        ConfigError: the key can't be used.
    """

    has_server = True
    options: ClassVar[tuple[str, ...] | None] = ()

    def __init__(
        self,
        config: EndpointConfig,
        system_prompt: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ):
        self.tokenizer = TextTokenizer()
        self._config = config
        self._endpoint = ChatEndpoint(config)
        self._system = [] if system_prompt is None else [_turn("system", system_prompt)]
        self._more = {"chat_template_kwargs": dict(template_kwargs)} if template_kwargs else {}
        self._limit = "max_tokens"
        self._taken = {"temperature", "seed"}  # fields that the server has not refused so far
        self._refused = 0
        self._answered = False

    @classmethod
    def from_config(cls, config: ModelConfig) -> OpenAIEngine:
        """Open the engine that a recipe's `[model]` describes.

        Raises:
            ConfigError: the address, the name or the key can't be used.
        """
        endpoint = EndpointConfig(
            config.base_url or "",
            config.name,
            config.api_key_env,
            max_tokens=0,  # each request has its own
            concurrency=config.batch_size,
            retries=3,  # someone may be waiting
        )
        return cls(endpoint, config.system_prompt, config.chat_template_kwargs)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> list[Generation | EngineError]:
        """One generation a request, without log-probs (`Engine.generate`).

        Raises:
            ModelServerError: the server is not there, refuses the key, or refuses all requests.
        """
        return run_to_end(self._generate(requests, sampling))

    async def _generate(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> list[Generation | EngineError]:
        """Ask one by one until the server has answered once, then several at a time."""
        replies: list[Generation | EngineError] = []
        async with self._endpoint:
            while not self._answered and len(replies) < len(requests):
                replies.append(await self._ask(requests[len(replies)], sampling))
                self._stop_if_all_is_refused(replies, len(requests))
            room = asyncio.Semaphore(self._config.concurrency)

            async def in_turn(request: Request) -> Generation | EngineError:
                async with room:
                    return await self._ask(request, sampling)

            try:
                async with asyncio.TaskGroup() as group:
                    rest = requests[len(replies) :]
                    tasks = [group.create_task(in_turn(request)) for request in rest]
            except BaseExceptionGroup as failures:  # the first has ended the others
                raise failures.exceptions[0] from None
        logger.debug("%s", self._endpoint.usage)
        return [*replies, *(task.result() for task in tasks)]

    def _stop_if_all_is_refused(
        self, replies: Sequence[Generation | EngineError], requests: int
    ) -> None:
        if self._answered:
            return
        self._refused += 1
        if self._refused >= _REFUSALS or len(replies) == requests > 1:
            raise ModelServerError(str(replies[-1]))

    async def _ask(self, request: Request, sampling: Sampling) -> Generation | EngineError:
        """Ask for one reply, and again without a field that the server refuses."""
        messages, forced = self.tokenizer.messages(request.prompt_ids)
        messages = [_turn(m["role"], for_servers(m["content"])) for m in messages]
        turns = [*self._system, *messages]
        if forced:
            wanted = f'{messages[-1]["content"]}\nYour reply must begin with "{forced}"'
            turns[-1] = _turn("user", wanted)
        fields = self._fields(request, sampling)
        try:
            reply = await self._endpoint.reply(turns, **fields)
        except RefusedError as error:
            if self._learned(fields, str(error)):
                return await self._ask(request, sampling)
            return error
        self._answered = True
        if reply.finish_reason == "content_filter":
            return EngineError(f"the server of {self._config.model!r} filtered its reply away")
        text = reply.text
        if forced:  # it belongs to the prompt, so the reply is what follows it
            text = text.removeprefix(forced)
        ids = self.tokenizer.encode(text)
        if reply.finish_reason == "length":
            return Generation(ids, (), (), "length")
        return Generation((*ids, self.tokenizer.end_id), (), (), "stop")

    def _fields(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        fields: dict[str, Any] = dict(self._more)
        if not any(name in self._config.extra for name in _LIMITS):  # else it is set there
            fields[self._limit] = self._config.max_tokens or request.max_tokens
        if "temperature" in self._taken:
            fields["temperature"] = sampling.temperature
        if sampling.top_p < 1:
            fields["top_p"] = sampling.top_p
        if "seed" in self._taken and sampling.temperature > 0:
            fields["seed"] = request.key % _SEEDS
        return fields

    def _learned(self, fields: Mapping[str, Any], refusal: str) -> bool:
        """Whether a refusal says that the same can be asked in another way, as is done from now."""
        if "max_tokens" in fields and "max_completion_tokens" in refusal:
            self._limit = "max_completion_tokens"
            return True
        for name in sorted({"temperature", "seed"} & fields.keys()):
            if name in refusal:
                if name in self._taken:
                    logger.warning("this server takes no %s: it samples in its own way", name)
                self._taken.discard(name)
                return True
        return False


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
