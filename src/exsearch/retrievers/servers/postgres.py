"""Postgres finds passages by its full text search, or by pgvector where an encoder is named.

One table a corpus. By words, a passage matches that shares one with the query, so that a question
needs no operators, and `ts_rank` orders them. The facts are the table's comment.
"""

from __future__ import annotations

import queue
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

from exsearch.errors import ConfigError, MissingExtraError
from exsearch.retrievers.servers.address import Address
from exsearch.retrievers.servers.collection import Collection, Facts, Row
from exsearch.retrievers.servers.retriever import ServerRetriever

try:
    import psycopg
    from psycopg import conninfo, errors, sql
except ImportError as error:
    raise MissingExtraError("a retriever in Postgres", "postgres", str(error)) from None

_OWN = ("table", "encoder", "timeout", "retries")
_LIBPQ = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey")

# A vector of words must stay below 1 MB, so of a very long text only the beginning is found.
_CREATE: LiteralString = """
CREATE TABLE {table} (
  id text COLLATE "C" PRIMARY KEY, title text NOT NULL, body text NOT NULL, hash text NOT NULL,
  words tsvector NOT NULL GENERATED ALWAYS AS (
    to_tsvector({language}::regconfig, left(title || ' ' || body, 200000))) STORED)
"""
# Materialized, or the query would be made anew for every row. `ts_rank` with the logarithm of the
# length found more than `ts_rank_cd` and than other lengths and weights of the title.
_SEARCH: LiteralString = """
WITH asked AS MATERIALIZED (
  SELECT replace(plainto_tsquery(%s::text::regconfig, %s)::text, ' & ', ' | ')::tsquery AS query)
SELECT id, title, body, hash, ts_rank(words, query, 1)::float8 AS score
FROM {table}, asked WHERE words @@ query ORDER BY score DESC, id LIMIT %s
"""
_NEAREST: LiteralString = """
SELECT * FROM (
  SELECT id, title, body, hash, -(vector <#> %s::vector)::float8 AS score
  FROM {table} ORDER BY vector <#> %s::vector LIMIT %s) AS found
ORDER BY score DESC, id
"""
_INDEXED_DIMENSIONS = 2000  # longer vectors have no index in pgvector: all are compared
# How many neighbours a search of the index looks at, and that it looks on where these are too few.
_SCAN = {"hnsw.ef_search": "100", "hnsw.iterative_scan": "strict_order"}


class PostgresTable(Collection):
    """A table with passages; its connections are kept for the next search.

    Args:
        place: `postgresql://user@host:port/database?table=name`; libpq's options for TLS and the
            folder of a socket as `host` may follow.

    Raises:
        ConfigError: the address can't be used.
    """

    failures = (psycopg.Error,)
    most = 1_000_000

    def __init__(self, place: str):
        address = Address.parse(place, ("table", "encoder", *_LIBPQ))
        expected = "?table= and small letters, digits and _, at most 50"
        table = address.options.get("table", "")
        super().__init__(address, address.name(table, "[a-z_][a-z0-9_]{0,49}", "a table", expected))
        if not address.options.get("host", "/").startswith("/"):  # it would overrule the host
            raise ConfigError(f"{address}: host is no folder of a socket")
        self._table = sql.Identifier(table)
        self._url = _without(place, _OWN)
        try:
            conninfo.conninfo_to_dict(self._url)
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"{address}: {self._said(error)}") from None
        # No pool of psycopg's: it waits where a server refuses, and does not say why it did.
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
        weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of one's own, which the next one gets unless something went wrong."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            seconds = max(2, round(self.address.timeout))
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=seconds, application_name="exsearch"
            )
            milliseconds = 0 if self.filling else int(self.address.timeout * 1000)  # 0: no limit
            settings = {"statement_timeout": str(milliseconds)}
            for setting in (settings | _SCAN if self.encoder else settings).items():
                connection.execute("SELECT set_config(%s, %s, false)", setting)
        try:
            yield connection
        except BaseException:
            connection.close()
            _close_all(self._idle)  # where it was the server, they are of no more use either
            raise
        self._idle.put(connection)

    def _run(self, statement: LiteralString, *values: Any, **parts: sql.Composable) -> list[Any]:
        """The rows that a statement gives, with the table and other parts put into it."""
        composed = sql.SQL(statement).format(table=self._table, **parts)
        with self._connection() as connection:
            cursor = connection.execute(composed, values or None)
            return cursor.fetchall() if cursor.description else []

    def stands(self) -> str | None:
        found = self._run(
            "SELECT coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class "
            "WHERE oid = to_regclass(%s)",
            self.name,
        )
        return found[0][0] if found else None

    def create(self, facts: Facts) -> None:
        language = facts.settings["language"]
        known = [name for (name,) in self._run("SELECT cfgname FROM pg_ts_config ORDER BY 1")]
        if language not in known:
            raise ConfigError(f"language is {language!r:.99}; {self.address} has {known}")
        with self._connection() as connection, connection.transaction():
            create = sql.SQL(_CREATE).format(table=self._table, language=sql.Literal(language))
            connection.execute(create)
            if self.encoder:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                size = sql.Literal(self.encoder.dimensions)
                add = sql.SQL("ALTER TABLE {} ADD COLUMN vector vector({}) NOT NULL")
                connection.execute(add.format(self._table, size))
            connection.execute(self._comment(facts))

    def settle(self) -> None:
        index = sql.Identifier(f"{self.name}_words")
        self._run("CREATE INDEX IF NOT EXISTS {index} ON {table} USING gin (words)", index=index)
        if self.encoder and self.encoder.dimensions <= _INDEXED_DIMENSIONS:
            index = sql.Identifier(f"{self.name}_vector")
            create = (
                "CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw (vector vector_ip_ops)"
            )
            self._run(create, index=index)
        self._run("ANALYZE {table}")

    def keep(self, facts: Facts) -> None:
        with self._connection() as connection:
            connection.execute(self._comment(facts))

    def count(self) -> int:
        return self._run("SELECT count(*) FROM {table}")[0][0]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        return dict(self._run("SELECT id, hash FROM {table} WHERE id = ANY(%s)", list(ids)))

    def write(self, rows: Sequence[Row], settings: dict[str, Any]) -> None:
        names = ["id", "title", "body", "hash", *(["vector"] if self.encoder else [])]
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(self._table, columns)
        with self._connection() as connection, connection.cursor().copy(copy) as lines:
            for row, vector in zip(rows, self.vectors(rows), strict=True):
                more = [str(vector)] if self.encoder else []
                lines.write_row((row.id, row.title, row.text, row.hash, *more))

    def search(self, queries: Sequence[str], k: int, settings: dict[str, Any]) -> list[list[Row]]:
        if self.encoder:
            vectors = map(str, self.encoder.queries(queries).tolist())
            return [[Row(*found) for found in self._run(_NEAREST, v, v, k)] for v in vectors]
        language = settings["language"]
        return [
            [Row(*found) for found in self._run(_SEARCH, language, query, k)] for query in queries
        ]

    def fetch(self, ids: Sequence[str]) -> list[Row]:
        found = self._run("SELECT id, title, body, hash FROM {table} WHERE id = ANY(%s)", list(ids))
        return [Row(*row) for row in found]

    def may_pass(self, error: Exception) -> bool:
        late = isinstance(error, errors.QueryCanceled | errors.ConnectionTimeout)
        return isinstance(error, psycopg.OperationalError) and not late

    def _comment(self, facts: Facts) -> sql.Composed:
        text = sql.Literal(facts.dump())
        return sql.SQL("COMMENT ON TABLE {} IS {}").format(self._table, text)


class PostgresRetriever(ServerRetriever):
    """Passages in a table of Postgres, found by full text search or by vectors."""

    collection = PostgresTable


def _without(place: str, names: Sequence[str]) -> str:
    """An address as libpq knows it: without options of ours."""
    parts = urlsplit(place)
    pairs = [p for p in parts.query.split("&") if p and p.partition("=")[0] not in names]
    return urlunsplit(("postgresql", parts.netloc, parts.path, "&".join(pairs), ""))


def _close_all(idle: queue.LifoQueue[psycopg.Connection[Any]]) -> None:
    while True:
        try:
            idle.get_nowait().close()
        except queue.Empty:
            return
