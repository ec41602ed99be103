"""Saved trajectories are shown by the page of `serve`, with no model behind it.

It reads what it shows once, at the start, and answers this machine only.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from exsearch.http_server import uvicorn_config
from exsearch.records import Trajectory
from exsearch.serving.faces import page
from exsearch.serving.refusals import Refusal
from exsearch.serving.traces import row_of, trace_of_trajectory
from exsearch.trajectories import Trace, trajectory_of


def in_both(first: Sequence[Trace], second: Sequence[Trace]) -> list[tuple[Trace, Trace]]:
    """The traces of two files that belong together: of one question, and the same sample of it."""
    others = {trajectory_of(trace).id: trace for trace in second}
    pairs = ((trace, others.get(trajectory_of(trace).id)) for trace in first)
    return [(trace, other) for trace, other in pairs if other is not None]


def make_saved_app(name: str, columns: Sequence[str], rows: Sequence[Sequence[Trace]]) -> ASGIApp:
    """The app that shows saved trajectories.

    Args:
        name: What the page says that it shows.
        columns: The names of the files.
        rows: For each question its trace in each of the files.
    """
    app = FastAPI(title="exsearch", docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.include_router(page.files_router())
    of = {trajectory_of(row[0]).id: row for row in rows}
    listed = [_joined(*(_row(id, trajectory_of(trace)) for trace in of[id])) for id in of]

    @app.get("/about")
    async def about() -> dict[str, Any]:
        return {"name": name, "asks": False, "columns": list(columns)}

    @app.get("/traces")
    async def traces() -> dict[str, Any]:
        return {"traces": listed}

    @app.get("/traces/{id:path}")
    async def trace(id: str) -> Response:
        if id not in of:
            return Refusal(404, f"no trajectory has the id {id!r}", param="id").response
        return JSONResponse(_joined(*map(trace_of_trajectory, of[id])))

    return app


def serve_saved(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until the process is interrupted.

    Args:
        app: The app, as `make_saved_app` made it.
        listener: The socket that listens; it is closed at the end.
    """
    with listener, contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn_config(app, lifespan="on")).run([listener])


def _row(id: str, trajectory: Trajectory) -> dict[str, Any]:
    return row_of(id, trajectory, trajectory.answer)


def _joined(first: dict[str, Any], *second: dict[str, Any]) -> dict[str, Any]:
    """The values of one trace, with those of the other file's beside them."""
    return {**first, "other": second[0]} if second else first
