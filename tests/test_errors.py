"""One exception tree, with one exit code a branch."""

from __future__ import annotations

import pytest

from exsearch import errors


def tree():
    kinds = [
        v for v in vars(errors).values() if isinstance(v, type) and v.__module__ == errors.__name__
    ]
    return [k for k in kinds if k is not errors.ExSearchError]


def test_every_error_is_on_the_tree_with_its_own_exit_code():
    assert tree()
    assert all(issubclass(kind, errors.ExSearchError) for kind in tree())
    codes = [kind.exit_code for kind in tree()]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 130} & set(codes)  # success, a bug, Ctrl-C


def test_the_drawn_tree_is_the_tree():
    drawn = {
        line.split()[1]: int(line.split()[-1])
        for line in (errors.__doc__ or "").splitlines()
        if line.strip().startswith(("├──", "└──"))
    }
    assert drawn == {kind.__name__: kind.exit_code for kind in tree()}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "no id"),
        ({"file": "q.jsonl"}, "q.jsonl: no id"),
        ({"file": "q", "line": 3}, "q:3: no id"),
    ],
)
def test_a_data_error_begins_with_its_place(place, message):
    assert str(errors.DataError("no id", **place)) == message


def test_a_missing_extra_says_how_to_install_it():
    error = errors.MissingExtraError("running a model here", "local", "No module named 'torch'")
    assert str(error) == (
        "running a model here needs more packages (No module named 'torch'): "
        "pip install 'exsearch[local]'"
    )
    assert str(errors.MissingExtraError("x", "local")) == (
        "x needs more packages: pip install 'exsearch[local]'"
    )
