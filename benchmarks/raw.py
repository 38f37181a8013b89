"""The bare libraries under a hybrid search, one thread each, with no service around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import tantivy
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.models import minilm

DEPTH = 100
BATCH_SIZES = (32, 64)


@dataclass
class RawHybrid:
    """A model, an HNSW graph (M 32, ef 64) and a tantivy index over the same texts."""

    model: SentenceTransformer
    graph: faiss.IndexHNSWFlat
    searcher: tantivy.Searcher
    index: tantivy.Index

    @classmethod
    def build(cls, texts: Sequence[str], vectors: NDArray[np.float32]) -> RawHybrid:
        """Index ``texts`` with their ``vectors`` ``(len(texts), dim)``."""
        faiss.omp_set_num_threads(1)
        graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 100
        graph.add(vectors)
        index = _lexical(texts)
        return cls(model=minilm(), graph=graph, searcher=index.searcher(), index=index)

    def step_ms(self, text: str) -> tuple[float, float, float]:
        """What one query costs: encode, FAISS, tantivy."""
        started = time.perf_counter()
        vector = self.model.encode([text], normalize_embeddings=True, show_progress_bar=False)
        encoded = time.perf_counter()
        self.graph.search(vector, DEPTH, params=faiss.SearchParametersHNSW(efSearch=max(64, DEPTH)))
        searched = time.perf_counter()
        query, _ = self.index.parse_query_lenient(text, ["text"])
        hits = self.searcher.search(query, DEPTH).hits
        self.searcher.fast_field_values("id", [address for _, address in hits])
        done = time.perf_counter()
        return (encoded - started) * 1e3, (searched - encoded) * 1e3, (done - searched) * 1e3

    def encode_qps(self, texts: Sequence[str], *, threads: int) -> float:
        """Texts a second through ``encode``, which sorts by length; the best of the batch sizes."""
        torch.set_num_threads(threads)
        try:
            return max(self._encode_qps(texts, size) for size in BATCH_SIZES)
        finally:
            torch.set_num_threads(1)

    def _encode_qps(self, texts: Sequence[str], batch_size: int) -> float:
        started = time.perf_counter()
        self.model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return len(texts) / (time.perf_counter() - started)


def _lexical(texts: Sequence[str]) -> tantivy.Index:
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("text", stored=False, tokenizer_name="en_stem")
    schema.add_unsigned_field("id", fast=True)
    index = tantivy.Index(schema.build())
    writer = index.writer(num_threads=1)
    for number, text in enumerate(texts):
        document = tantivy.Document()
        document.add_text("text", text)
        document.add_unsigned("id", number)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index
