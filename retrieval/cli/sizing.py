"""What sizing is about: a corpus, an index, a demand, machines; and what one chunk takes, part by part. Pure.

Embedded kinds (``flat``, ``hnsw``, ``ivf_flat``, ``ivf_pq``) keep the whole dense index on every server. With
``pgvector`` and ``qdrant`` it is in a store; the servers keep the lexical leg, token vectors and metadata.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ragstone.errors import InvalidArgument
from retrieval.cli import layouts
from retrieval.cli.layouts import Bytes
from retrieval.cli.rates import Basis

Kind = Literal["flat", "hnsw", "ivf_flat", "ivf_pq", "pgvector", "qdrant"]
KINDS: Final[tuple[Kind, ...]] = ("flat", "hnsw", "ivf_flat", "ivf_pq", "pgvector", "qdrant")
STORES: Final = ("pgvector", "qdrant")
GIB: Final = 2**30

_LEXICAL: Final = 0.36
"""Bytes of a tantivy index for one of text, measured with 3,124 chunks of 235 bytes."""
_METADATA: Final = (160.0, 55.0)
"""Memory of the filter index for a document, and for each value of its metadata (measured)."""
_METADATA_CHUNKS: Final = 300.0
"""More for a document of several chunks: its values then have bitmaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What is indexed."""

    chunks: int
    documents: int
    chunk_tokens: int = 128
    document_tokens: float = 0.0
    bytes_a_token: float = 4.5
    metadata_bytes: float = 64.0
    metadata_values: float = 2.0
    """Values of a document that filters may ask for."""

    @property
    def texts(self) -> layouts.Texts:
        """How long the texts are."""
        return layouts.Texts(
            chunk=self.chunk_tokens * self.bytes_a_token,
            document=self.document_tokens * self.bytes_a_token,
            chunks_a_document=self.chunks / self.documents,
            metadata=self.metadata_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexChoice:
    """How it is indexed."""

    kind: Kind = "hnsw"
    dim: int = 384
    m: int = 16
    storage: layouts.Storage = "sq8"
    nlist: int | None = None
    half: bool = False
    """``halfvec`` of pgvector."""
    quantised: bool = False
    """8-bit scalar quantisation of Qdrant."""
    tokens: bool = True
    """Token vectors for late interaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked of it."""

    searches_s: float = 0.0
    latency_ms: float = 0.0
    """0 sets no target."""
    replicas: int = 1
    """Copies of everything that answers, so that ``replicas - 1`` may be away."""
    chunks_written_s: float = 0.0
    rebuild_h: float = 24.0
    """In which a new model's vectors are to be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One server, and how full it may be."""

    memory: float = 64 * GIB
    cores: int = 16
    busy: float = 0.5
    """Of its cores, at most: latency grows without bound towards 1."""
    filled: float = 0.75
    """Of its memory, at most."""
    gpus: int = 0
    gpu_tflops: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In any currency. What has no price costs nothing."""

    server_month: float = 0.0
    disk_gib_month: float = 0.0
    core_hour: float = 0.0
    gpu_hour: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One result."""

    section: str
    name: str
    value: float
    unit: str
    basis: Basis
    how: str = ""


class Part(NamedTuple):
    """What one chunk takes somewhere."""

    name: str
    size: Bytes
    where: Literal["server", "store", "catalog"]
    basis: Basis
    how: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that was computed, in the order in which it is told; ``notes`` say what does not fit."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def value(self, section: str, name: str) -> float:
        """One result. Raises KeyError."""
        return {(line.section, line.name): line.value for line in self.lines}[section, name]


def chunks_of(documents: int, *, document_tokens: float, chunk_tokens: int, overlap_tokens: int) -> int:
    """Chunks of that many documents: each begins ``chunk_tokens - overlap_tokens`` after the one before.

    Raises InvalidArgument where chunks overlap as far as they are long.
    """
    if overlap_tokens >= chunk_tokens:
        raise InvalidArgument.at("overlap_tokens", "chunks cannot overlap as far as they are long")
    step = chunk_tokens - overlap_tokens
    return documents * max(1, math.ceil((document_tokens - overlap_tokens) / step))


# -- one chunk ----------------------------------------------------------------------------------


def parts_of(corpus: Corpus, index: IndexChoice) -> tuple[Part, ...]:
    """What one chunk takes, part by part. Raises InvalidArgument for a vector that pgvector cannot index."""
    exact, given = Basis.ARITHMETIC, Basis.PUBLISHED
    text = corpus.chunk_tokens * corpus.bytes_a_token
    parts = [*_dense(corpus, index)]
    parts.append(
        Part("lexical", Bytes(disk=_LEXICAL * text, memory=_LEXICAL * text), "server", given, "0.36 x text")
    )
    if index.tokens:
        tokens = layouts.lmdb_tokens(corpus.chunk_tokens)
        parts.append(Part("token vectors", tokens, "server", exact, "LMDB pages of 0.34 x tokens x 132"))
    filters = _filter_bytes(corpus)
    parts.append(
        Part("metadata for filters", Bytes(disk=0, memory=filters), "server", given, "Python dictionaries")
    )
    parts.append(Part("texts", layouts.catalog_texts(corpus.texts), "catalog", exact, "SQLite rows, indexes"))
    embedding = layouts.catalog_embedding(index.dim)
    parts.append(Part("stored embeddings", embedding, "catalog", exact, "SQLite rows of 4 x dim"))
    return tuple(parts)


def _filter_bytes(corpus: Corpus) -> float:
    a_document, a_value = _METADATA
    several = _METADATA_CHUNKS if corpus.chunks > corpus.documents else 0.0
    return (a_document + several + a_value * corpus.metadata_values) * corpus.documents / corpus.chunks


def _dense(corpus: Corpus, index: IndexChoice) -> Iterator[Part]:
    exact, rows, dim = Basis.ARITHMETIC, corpus.chunks, index.dim
    if index.kind == "qdrant":
        size = layouts.qdrant(dim, m=index.m, quantised=index.quantised, payload=corpus.metadata_bytes)
        how = (
            "Qdrant's rule x 1.5, over 8-bit codes and links" if index.quantised else "Qdrant: 4 x dim x 1.5"
        )
        yield Part("vectors in Qdrant", size, "store", exact, how)
        return
    if index.kind == "pgvector":
        most = 4_000 if index.half else 2_000
        if dim > most:
            raise InvalidArgument.at("dim", f"pgvector indexes at most {most} dimensions of this type")
        graph = layouts.pgvector_hnsw(dim, m=index.m, half=index.half)
        yield Part("HNSW of pgvector", graph, "store", exact, "two tuples a vector on pages of 8 KiB")
        table = layouts.pgvector_table(dim, half=index.half, payload=corpus.metadata_bytes)
        yield Part("table of pgvector", table, "store", exact, "heap, TOAST, key")
        return
    flat = index.kind == "flat"
    yield Part("raw vectors", layouts.raw_vectors(dim, scanned=flat), "server", exact, "4 x dim")
    yield Part("ids", layouts.keys(), "server", exact, "int64")
    if not flat:
        yield Part("structure", _structure(index, rows), "server", exact, _STRUCTURE_HOW[index.kind])


def _structure(index: IndexChoice, rows: int) -> Bytes:
    match index.kind:
        case "hnsw":
            return layouts.faiss_hnsw(index.dim, m=index.m, storage=index.storage)
        case "ivf_flat":
            return layouts.faiss_ivf_flat(index.dim, rows=rows, nlist=index.nlist)
        case _:
            return layouts.faiss_ivf_pq(index.dim, rows=rows, nlist=index.nlist)


_STRUCTURE_HOW: Final[Mapping[str, str]] = {
    "hnsw": "4 x (2 m + m / (m - 1)) + 12 + codes",
    "ivf_flat": "4 x dim + 8 + centroids",
    "ivf_pq": "dim / 4 + 8 + centroids, blocks of 32",
}
