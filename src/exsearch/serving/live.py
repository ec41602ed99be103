"""The report of a run is served while the run is trained, built anew as its journal grows.

It reads the run and changes nothing of it. An open page asks for the newest version's name, and for
the whole page again only when that has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from exsearch.errors import ExSearchError
from exsearch.runs import is_locked
from exsearch.serving import ServeConfig
from exsearch.serving.gate import Gate
from exsearch.serving.metrics import Metrics
from exsearch.training.stages import METRICS_FILE

logger = logging.getLogger(__name__)
EVERY = 2.0  # seconds between two looks at the journal
_SHARE = 10  # at most a tenth of the time is spent on building, which training would have too
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Newest:
    """The newest page of a run.

    Args:
        run: The folder of the run.
        build: A function that gives the page of what stands there now, with this version's name.
    """

    def __init__(self, run: Path, build: Callable[[str], str]):
        self.page, self.version, self.trouble = b"", "", "nothing is measured yet"
        self._journal, self._build = run / METRICS_FILE, build
        self._seen: tuple[int, int] | None = None
        self._next = 0.0  # the time before which it is not built again

    async def keep(self) -> None:
        """Build the page anew whenever the journal has grown, until it is cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Build the page anew where there is something new, and it is time."""
        try:
            found = self._journal.stat()
        except OSError:
            return
        seen, start = (found.st_size, found.st_mtime_ns), time.monotonic()
        if seen == self._seen or start < self._next:
            return
        try:
            version = secrets.token_hex(8)
            self.page, self.version, self.trouble = self._build(version).encode(), version, ""
        except ExSearchError as error:  # what is half there may be whole at the next look
            self.trouble = str(error)
            logger.warning("%s", error)
        except Exception as error:  # it must not end the looking: the next may go well
            self.trouble = f"can't be reported ({type(error).__name__})"
            logger.exception("the report can't be built")
        self._seen = seen
        now = time.monotonic()
        self._next = now + _SHARE * (now - start)


def make_live_app(run: Path, build: Callable[[str], str], config: ServeConfig) -> ASGIApp:
    """The app that serves the report of a run.

    Args:
        run: The folder of the run.
        build: A function that gives the page of what stands there now, with this version's name.
        config: Who may ask.
    """
    newest = _Newest(run, build)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(newest.keep())
        yield
        keeping.cancel()

    app = FastAPI(title="exsearch", docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.get("/")
    async def page() -> Response:
        if not newest.page:
            told = f"{run.name}: {newest.trouble}. This page looks again every 5 seconds.\n"
            return PlainTextResponse(told, headers={**_HEADERS, "Refresh": "5"})
        headers = {**_HEADERS, "ETag": f'"{newest.version}"'}
        return Response(newest.page, headers=headers, media_type="text/html; charset=utf-8")

    @app.get("/favicon.ico")
    async def favicon() -> Response:
        return Response(status_code=204)  # the page has its own; what waits for it has none

    @app.get("/version")
    async def version() -> JSONResponse:
        """What an open page asks, to know whether it is still the newest."""
        going = await asyncio.to_thread(is_locked, run)
        told = {"version": newest.version, "going": going, "trouble": newest.trouble}
        return JSONResponse(told, headers=_HEADERS)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return Gate(app, config, Metrics())
