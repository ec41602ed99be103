"""BM25 systems to compare: each indexes a corpus, opens its index, and searches.

All get the same corpus, title words twice, k1 and b; each returns whole passages. A system is
imported when it is used, since not every machine has all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from exsearch.data.corpus import read_corpus
from exsearch.records import Passage
from exsearch.retrievers.analyser import ENGLISH_STOPWORDS, Analyser

K1, B, TITLE_WEIGHT = 1.2, 0.75, 2  # our defaults; k1 and b are tantivy's, too
K = 5  # passages a query

Search = Callable[[Sequence[str]], list[list[Passage]]]


class Ours:
    """`exsearch.retrievers.bm25`, through its public names."""

    name = "exsearch"

    @staticmethod
    def build(corpus: Path, index: Path) -> None:
        """Index a corpus."""
        from exsearch.retrievers.bm25 import build_bm25

        options: dict[str, Any] = {"k1": K1, "b": B, "title_weight": TITLE_WEIGHT}
        build_bm25(read_corpus([corpus]), index, progress=False, **options)

    @staticmethod
    def open(index: Path) -> Search:
        """Open an index."""
        from exsearch.retrievers.bm25 import Bm25Retriever

        retriever = Bm25Retriever.open(index)
        return lambda queries: retriever.search(queries, K)


class Tantivy:
    """tantivy with an analyser like ours; it rounds the lengths of passages, so scores differ."""

    name = "tantivy"

    @staticmethod
    def _analyser() -> Any:
        from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

        builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase())
        builder = builder.filter(Filter.ascii_fold())
        builder = builder.filter(Filter.custom_stopword(list(ENGLISH_STOPWORDS)))
        return builder.filter(Filter.stemmer("english")).build()

    @staticmethod
    def build(corpus: Path, index: Path) -> None:
        """Index a corpus in one thread."""
        import tantivy

        schema = tantivy.SchemaBuilder()
        for field in ("id", "title", "text"):
            schema.add_text_field(field, stored=True, tokenizer_name="raw", index_option="basic")
        schema.add_text_field("words", tokenizer_name="ours", index_option="freq")
        index.mkdir()
        made = tantivy.Index(schema.build(), path=str(index))
        made.register_tokenizer("ours", Tantivy._analyser())
        writer = made.writer(heap_size=200_000_000, num_threads=1)
        for p in read_corpus([corpus]):
            words = " ".join([p.title] * TITLE_WEIGHT + [p.text])
            writer.add_document(tantivy.Document(id=p.id, title=p.title, text=p.text, words=words))
        writer.commit()
        writer.wait_merging_threads()

    @staticmethod
    def open(index: Path) -> Search:
        """Open an index."""
        import tantivy

        opened = tantivy.Index.open(str(index))
        opened.register_tokenizer("ours", Tantivy._analyser())
        searcher = opened.searcher()

        def one(query: str) -> Iterator[Passage]:
            # without the count of all matches it may pass over what can't be among the best
            result = searcher.search(opened.parse_query(query, ["words"]), K, count=False)
            for score, address in result.hits:
                found = searcher.doc(address)
                id_, title, text = (str(found.get_first(f)) for f in ("id", "title", "text"))
                yield Passage(id_, title, text, score / (K1 + 1))  # Lucene has no such factor

        return lambda queries: [list(one(query)) for query in queries]


class RankBm25:
    """rank_bm25 with Lucene's idf, as ours has; it keeps its index in memory only."""

    name = "rank_bm25"

    @staticmethod
    def open(corpus: Path) -> Search:
        """Index a corpus."""
        import numpy as np
        from rank_bm25 import BM25Okapi

        passages = list(read_corpus([corpus]))
        words = Analyser().words
        lists = [words(p.title) * TITLE_WEIGHT + words(p.text) for p in passages]
        ranker = BM25Okapi(lists, k1=K1, b=B)
        holders = dict.fromkeys(ranker.idf, 0)
        for frequencies in ranker.doc_freqs:
            for word in frequencies:
                holders[word] += 1
        n = len(passages)
        ranker.idf = {w: math.log1p((n - df + 0.5) / (df + 0.5)) for w, df in holders.items()}

        def one(query: str) -> list[Passage]:
            scores = ranker.get_scores(words(query)) / (K1 + 1)
            best = np.argsort(-scores, kind="stable")[:K]
            found = [(passages[i], float(scores[i])) for i in best if scores[i] > 0]
            return [Passage(p.id, p.title, p.text, score) for p, score in found]

        return lambda queries: [one(query) for query in queries]
