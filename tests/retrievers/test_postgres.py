"""Postgres as a place, on a real server: what the contract of all places does not say."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exsearch.errors import ConfigError, DataError, IndexDamagedError, RetrieverError
from exsearch.records import Passage
from exsearch.retrievers import build_index, open_retriever
from search_servers import postgres, postgres_table

ANTS = [
    Passage("a", "Ants", "Ants are small and carry leaves."),
    Passage("b", "Bees", "Bees make honey."),
    Passage("c", "Wasps", "Wasps build paper nests."),
]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return postgres_table(tmp_path)


def fill(place: str, passages: Any = ANTS, **settings: Any) -> int:
    return build_index(passages, place, settings=settings, progress=False)


def ask(place: str, query: str, k: int = 5) -> list[str]:
    (found,) = open_retriever(place, cache=0).search([query], k)
    return [passage.id for passage in found]


def run(place: str, statement: str) -> list[Any]:
    """What a statement about the table `{T}` gives."""
    base, _, table = place.rpartition("&table=")
    with psycopg.connect(base) as connection:
        cursor = connection.execute(statement.replace("{T}", table).encode())
        return cursor.fetchall() if cursor.description else []


def test_a_question_needs_no_operators_and_no_exact_form(place: str):
    assert fill(place) == 3
    assert ask(place, "Which insect that is carrying a leaf lives in a very big hill?") == ["a"]
    assert ask(place, "a bee or a wasp") == ["b", "c"]
    assert ask(place, "the and of") == ask(place, "?!") == []


def test_equal_scores_stand_in_the_order_of_their_ids(place: str):
    fill(place, [Passage(id_, "", "honey") for id_ in ("é", "b", "Z", "a", "aa")])
    assert ask(place, "honey") == ["Z", "a", "aa", "b", "é"]
    assert ask(place, "honey", 2) == ["Z", "a"]


def test_another_language(place: str):
    fill(place, [Passage("d", "Häuser", "Die Kinder spielten.")], language="german")
    assert ask(place, "das Haus der spielenden Kinder") == ["d"]
    assert '"german"' in open_retriever(place).identity()
    with pytest.raises(ConfigError, match=r"settings .*german.*, not .*english"):
        fill(place)


def test_a_language_that_there_is_not(place: str):
    with pytest.raises(ConfigError, match=r"language is 'klingon'; .*'english'"):
        fill(place, language="klingon")
    with pytest.raises(IndexDamagedError, match="nothing stands there; fill it with"):
        open_retriever(place)


def test_a_table_of_another_is_not_touched(place: str):
    run(place, "CREATE TABLE {T} (id text)")
    with pytest.raises(ConfigError, match="something else stands there, which is left as it is"):
        fill(place)
    with pytest.raises(IndexDamagedError, match="not filled by this exsearch"):
        open_retriever(place)
    run(place, """COMMENT ON TABLE {T} IS '{"exsearch": 2, "settings": {}}'""")
    with pytest.raises(IndexDamagedError, match="not filled by this exsearch"):
        open_retriever(place)
    assert run(place, "SELECT count(*) FROM {T}") == [(0,)]


def test_an_id_that_comes_twice_far_apart(place: str):
    many = [Passage(str(number), "", "text") for number in range(600)]
    with pytest.raises(DataError, match="601 passages were read and 600 stand there"):
        fill(place, [*many, many[0]])
    with pytest.raises(IndexDamagedError, match="in part only"):
        open_retriever(place)


def test_what_was_changed_in_the_table_is_noticed(place: str):
    fill(place)
    run(place, "UPDATE {T} SET body = 'Ants are giants.' WHERE id = 'a'")
    retriever = open_retriever(place)
    for act in (lambda: retriever.search(["ants"], 3), lambda: retriever.fetch(["b", "a"])):
        with pytest.raises(RetrieverError, match="'a' was changed there"):
            act()
    assert ask(place, "bees") == ["b"]
    run(place, "DELETE FROM {T} WHERE id = 'b'")
    with pytest.raises(IndexDamagedError, match="it holds 2 passages where 3 were filled in"):
        open_retriever(place)
    run(place, "DROP TABLE {T}")
    with pytest.raises(RetrieverError, match=r"does not exist.*\(attempt 1\)"):
        retriever.search(["ants"], 3)


def test_connections_that_the_server_ended_are_made_anew(place: str):
    fill(place)
    retriever = open_retriever(place, cache=0)
    start = threading.Barrier(6)

    def search() -> None:
        start.wait()
        retriever.search(["bees"] * 20, 3)

    threads = [threading.Thread(target=search) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = run(
        place,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'exsearch'",
    )
    assert ended
    assert [p.id for p in retriever.search(["bees"], 3)[0]] == ["b"]


def test_a_search_ends_at_its_time(place: str):
    fill(place)
    retriever = open_retriever(place + "&timeout=0.2", cache=0)
    base, _, table = place.rpartition("&table=")
    with psycopg.connect(base) as connection:
        connection.execute(f"LOCK TABLE {table}".encode())
        start = time.monotonic()
        with pytest.raises(RetrieverError, match=r"statement timeout \(attempt 1\)"):
            retriever.search(["bees"], 3)
        assert time.monotonic() - start < 20
    assert retriever.search(["bees"], 3)[0]


@pytest.mark.parametrize("name", ["", "Docs", "a b", 'x"; DROP TABLE y; --', "1a", "a" * 51, "a.b"])
def test_a_table_name_is_one(name: str):
    with pytest.raises(ConfigError, match=r"is no name of a table; expected \?table="):
        open_retriever(f"{postgres()}&table={name}")


def test_a_password_among_the_options_is_not_taken():
    with pytest.raises(ConfigError, match="leave it out and set PGPASSWORD") as error:
        open_retriever("postgresql://h/d?table=t&password=pa55")
    assert "pa55" not in str(error.value)


def test_addresses_that_can_not_be_meant():
    for options, message in (
        ("retries=1.5", "retries is .1.5., expected a whole number from 0"),
        ("host=other", "host is no folder of a socket"),
        ("timeout=3&timeout=3", "an option comes twice"),
        ("timeout=0", "timeout is '0', expected seconds above 0"),
        ("timeout=soon", "timeout is 'soon'"),
        ("sslmodus=on", "there is no option .sslmodus.; it has .*sslmode"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_retriever(f"postgresql://h/d?table=t&{options}")
    with pytest.raises(ConfigError, match="can't be read as the address of a server"):
        open_retriever("postgresql://h:port/d?table=t")
