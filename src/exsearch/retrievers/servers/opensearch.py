"""OpenSearch as a place: its client, for what `elastic` asks."""

from __future__ import annotations

from typing import Any

from exsearch.errors import MissingExtraError
from exsearch.retrievers.servers.elastic import ElasticIndex, ServerRefusal
from exsearch.retrievers.servers.retriever import ServerRetriever

try:
    from opensearchpy import OpenSearch
    from opensearchpy.exceptions import ConnectionTimeout, OpenSearchException, TransportError
except ImportError as error:
    raise MissingExtraError("OpenSearch", "opensearch", str(error)) from None


class OpenSearchIndex(ElasticIndex):
    """An index with passages in OpenSearch."""

    failures = (OpenSearchException, ServerRefusal)

    def _connect(self, url: str) -> Any:
        (password,), user = self.secrets, self.address.user
        return OpenSearch(
            url,
            http_auth=(user, password) if user else None,
            ca_certs=self.address.options.get("ca"),
            timeout=self.address.timeout,
            max_retries=0,
            retry_on_timeout=False,
        )

    def _ask(self, method: str, path: str, body: Any, kind: str) -> Any:
        headers = {"accept": "application/json", "content-type": f"application/{kind}"}
        return self._client.transport.perform_request(method, path, body=body, headers=headers)

    def _status(self, error: Exception) -> int:
        if isinstance(error, ConnectionTimeout | ServerRefusal):
            return -1
        status = error.status_code if isinstance(error, TransportError) else -1
        return status if isinstance(status, int) else 0


class OpenSearchRetriever(ServerRetriever):
    """Passages in an index of OpenSearch, found by BM25."""

    collection = OpenSearchIndex
