"""The items of a study are judged on a page on this machine, one after the other.

The browser gets an item's content and its id, which tells nothing; never a run, a method or what a
metric says.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.types import ASGIApp

from exsearch.judging.items import Kind
from exsearch.judging.study import Study, Verdict
from exsearch.serving import ServeConfig
from exsearch.serving.faces import page
from exsearch.serving.gate import Gate
from exsearch.serving.metrics import Metrics
from exsearch.serving.refusals import Refusal


class Said(BaseModel):
    """A judgement as the page sends it.

    Attributes:
        judge: The judge's name.
        item: The item's id.
        verdict: What was said.
    """

    model_config = ConfigDict(extra="forbid")

    judge: str
    item: str
    verdict: Verdict


def make_judge_app(study: Study, judge: str = "", kinds: Collection[Kind] = tuple(Kind)) -> ASGIApp:
    """The app that asks judges, and keeps what they say.

    Args:
        study: What is judged, and where judgements are kept.
        judge: The name of the judge; empty has the page ask for it.
        kinds: The kinds of items that are asked about.
    """
    app = FastAPI(title="exsearch", docs_url=None, redoc_url=None)
    app.include_router(page.files_router("judge.html"))
    asked = {id: item for id, item in study.items.items() if item.kind in kinds}

    @app.get("/about")
    async def about() -> dict[str, Any]:
        return {"judge": judge}

    @app.get("/items")
    async def items(judge: str) -> dict[str, Any]:
        said = {one.item: one.verdict for one in study.judgements() if one.judge == judge}
        return {"items": [{"id": id, "verdict": said.get(id)} for id in asked]}

    @app.get("/items/{id}")
    async def item(id: str) -> Any:
        if id not in asked:
            return Refusal(404, "no such item is judged here", param="id").response
        return {"kind": asked[id].kind, **asked[id].content}

    @app.post("/judgements", status_code=204)
    async def judgements(said: Said) -> Response:  # one at a time: it waits for the disk
        try:
            study.add(said.judge, said.item, said.verdict)
        except ValueError as error:
            return Refusal(422, str(error)).response
        return Response(status_code=204)

    return Gate(app, ServeConfig("judge"), Metrics(), only_here=True)
