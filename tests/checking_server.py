"""A server for tests that checks what it is asked: a subclass says what is right, and replies."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Refused(Exception):
    """A request that is refused.

    Attributes:
        status: The HTTP status.
        kind: The server's name for what is wrong.
    """

    def __init__(self, status: int, kind: str, reason: str):
        super().__init__(reason)
        self.status, self.kind = status, kind


class CheckingServer:
    """A server on a port of this machine.

    Attributes:
        fault: A function that changes status and reply of a path before they are sent.
        requests: What was asked, as method and path.
        headers: The headers of the last request, by their names in small letters.
    """

    own_headers: dict[str, str]

    def __init__(self) -> None:
        self.fault: Any = lambda path, status, reply: (status, reply)
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    status, reply = server.reply(self.command, self.path, headers, body)
                data = json.dumps(reply).encode()
                self.send_response(status)
                own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
                for name, value in (own | server.own_headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_POST = do_PATCH = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def reply(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        self.headers = headers
        try:
            status, reply = 200, self.answer(method, path, headers.get("content-type", ""), body)
        except Refused as refused:
            status, reply = refused.status, self.refusal(refused)
        except (LookupError, TypeError, ValueError) as error:
            status, reply = 400, self.refusal(Refused(400, "parse_exception", repr(error)))
        return self.fault(path, status, reply)

    def answer(self, method: str, path: str, kind: str, body: bytes) -> Any:
        """The reply to a request."""
        raise NotImplementedError

    def refusal(self, refused: Refused) -> Any:
        """The reply to a request that is refused."""
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
