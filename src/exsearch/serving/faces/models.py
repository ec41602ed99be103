"""The models that OpenAI's API lists: there is one, the searcher."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from exsearch.serving.refusals import documented
from exsearch.serving.requests import check_model

router = APIRouter(prefix="/v1")


class Model(BaseModel):
    """A model as the API lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0  # not known
    owned_by: str = "exsearch"


class Models(BaseModel):
    """A list of models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
async def list_models(request: Request) -> Models:
    """The model that is served."""
    return Models(data=[Model(id=request.app.state.config.model)])


@router.get("/models/{id:path}", responses=documented(404))
async def get_model(request: Request, id: str) -> Model:
    """The model that is served, by its name."""
    check_model(request, id)
    return Model(id=id)
