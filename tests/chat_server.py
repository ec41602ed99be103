"""A chat server for tests: real HTTP on this machine, with replies by a script."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from exsearch.records import Passage, Question

PASSAGE = Passage("p1", "Quillmoor", "Quillmoor is a harbour town. Ada Fenn built its lighthouse.")
FACT = "[1] Ada Fenn built the lighthouse of Quillmoor."
KEY = "sk-very-secret-1234"

Body = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]


def completion(text: str | None, finish_reason: str | None = "stop") -> Answer:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 11, "completion_tokens": 3}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"choices": [choice], "usage": usage}
    return 200, {}, json.dumps(body).encode()


class OnePassage:
    """A retriever that always finds the same passage; keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.queries += queries
        return [[PASSAGE] for _ in queries]

    def fetch(self, ids: Sequence[str]) -> list[Passage | None]:
        return [PASSAGE if id_ == PASSAGE.id else None for id_ in ids]

    def identity(self) -> str:
        return "one passage"


def questions(count: int) -> list[Question]:
    return [Question(f"q{n}", f"Who built lighthouse {n}?", ("Ada Fenn",)) for n in range(count)]


def good(body: Body) -> str:
    """One search, one record, the right answer."""
    prompt = body["messages"][-1]["content"]
    if "Query:" in prompt:
        return FACT
    return "Answer: Ada Fenn" if "\n1. " in prompt else "Search: Who built the lighthouse?"


class FakeServer:
    """Answers each request by `script`, in a thread of its own; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: Callable[[Body], Answer | str | None] = lambda body: ""
        self.bodies: list[Body] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()  # ends what hangs
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                data = self.rfile.read(length)
                if len(data) < length:  # the client has gone
                    return
                body = json.loads(data)
                fake.bodies.append(body)
                fake.paths.append(self.path)
                fake.headers.append({k.lower(): v for k, v in self.headers.items()})
                reply = fake.script(body)
                status, headers, data = completion(reply) if isinstance(reply, str) else reply or (
                    200, {}, b""
                )  # fmt: skip
                with contextlib.suppress(OSError):  # a client may have gone
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(data)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.place = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.place}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
