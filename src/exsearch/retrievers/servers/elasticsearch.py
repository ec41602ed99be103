"""Elasticsearch as a place: its client, for what `elastic` asks."""

from __future__ import annotations

from typing import Any

from exsearch.errors import MissingExtraError
from exsearch.retrievers.servers.elastic import ElasticIndex, ServerRefusal
from exsearch.retrievers.servers.retriever import ServerRetriever

try:
    from elastic_transport import ConnectionTimeout, TransportError
    from elasticsearch import ApiError, Elasticsearch
except ImportError as error:
    raise MissingExtraError("Elasticsearch", "elasticsearch", str(error)) from None


class ElasticsearchIndex(ElasticIndex):
    """An index with passages in Elasticsearch."""

    failures = (TransportError, ApiError, ServerRefusal)

    def _connect(self, url: str) -> Any:
        (key,), user, ca = self.secrets, self.address.user, self.address.options.get("ca")
        certificates: dict[str, Any] = {"ca_certs": ca} if ca else {}
        return Elasticsearch(
            url,
            basic_auth=(user, key) if user else None,
            api_key=None if user else key or None,
            **certificates,
            request_timeout=self.address.timeout,
            max_retries=0,
            retry_on_timeout=False,
        )

    def _ask(self, method: str, path: str, body: Any, kind: str) -> Any:
        headers = {"accept": "application/json", "content-type": f"application/{kind}"}
        return self._client.perform_request(method, path, headers=headers, body=body).body

    def _status(self, error: Exception) -> int:
        if isinstance(error, ApiError):
            return error.meta.status
        return -1 if isinstance(error, ConnectionTimeout | ServerRefusal) else 0


class ElasticsearchRetriever(ServerRetriever):
    """Passages in an index of Elasticsearch, found by BM25."""

    collection = ElasticsearchIndex
