"""Combining makes one place of others: a hybrid of several, re-ranked or not.

Nothing is copied: the new folder names the places, and they are searched where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from exsearch.errors import ConfigError
from exsearch.hosts import host_of
from exsearch.retrievers import FACTS_FILE, is_address
from exsearch.retrievers.hybrid import Fusion
from exsearch.retrievers.inner import inner_name, open_inner, write_combined
from exsearch.retrievers.nesting import opening
from exsearch.retrievers.rerank import Reranking
from exsearch.retrievers.scorers import Scorer
from exsearch.runs import new_folder, refuse_other_content

_FUSED = "fused"  # in a folder that re-ranks several places: their hybrid


def combine(
    places: Sequence[str | Path],
    out: Path,
    *,
    fusion: Fusion | None = None,
    reranking: Reranking | None = None,
) -> None:
    """Write a folder that `open_retriever` opens as one place; what it names is opened and tried.

    Args:
        places: Index folders and addresses; several are fused.
        out: The folder to write, whole or not at all.
        fusion: How the lists of several places become one; None takes the default.
        reranking: How the first passages are re-ordered; None leaves them as they are. Its `model`
            is a name, or a path that begins here.

    Raises:
        ConfigError: nothing to combine, settings that don't fit, or `out` is no index.
        IndexDamagedError: a place can't be opened, or leads to `out` itself.
        ModelError: the model can't be found or loaded.
    """
    if not places or (len(places) == 1 and not reranking):
        raise ConfigError("nothing to combine: give two places or more, or a model that re-ranks")
    given = [str(place) for place in places]
    if len(set(given)) < len(given):
        raise ConfigError(f"a place is given twice: {', '.join(given)}")
    fusion = fusion or Fusion()
    try:
        fusion.weights_of(len(places))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    refuse_other_content(out, FACTS_FILE, "index")
    with opening(out, [host_of(place) for place in given if is_address(place)]):
        for place in given:
            open_inner(place, out)
    if reranking:
        Scorer.open(reranking.model, reranking.score_by)
    with new_folder(out) as folder:
        if reranking and len(given) == 1:
            _write_rerank(folder, inner_name(out, given[0]), reranking, out)
        elif reranking:
            with new_folder(folder / _FUSED) as inner:
                names = [inner_name(out / _FUSED, place) for place in given]
                write_combined(inner, "hybrid", names, fusion)
            _write_rerank(folder, f"./{_FUSED}", reranking, out)
        else:
            names = [inner_name(out, place) for place in given]
            write_combined(folder, "hybrid", names, fusion)


def _write_rerank(folder: Path, place: str, reranking: Reranking, out: Path) -> None:
    model = reranking.model
    if Path(model).expanduser().is_dir():
        model = inner_name(out, Path(model).expanduser())
    write_combined(folder, "rerank", [place], dataclasses.replace(reranking, model=model))
