"""The public values of Ragstone: frozen, and free of protobuf and gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from ragstone.answers import Citation, Done, Generation, Standalone, TextDelta, Turn, Usage

Scalar: TypeAlias = str | int | float | bool | date | datetime
MetadataValue: TypeAlias = Scalar | Sequence[Scalar]
Metadata: TypeAlias = Mapping[str, MetadataValue]
VectorLike: TypeAlias = Any
"""A float32 row: a sequence of floats, or any object with the buffer protocol (a NumPy row)."""


class Mode(StrEnum):
    """Which legs answer a search."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


class Wait(StrEnum):
    """What a write waits for before it returns."""

    COMMITTED = "committed"
    """The write is durable; searches see it soon."""
    INDEXED = "indexed"
    """The write is durable and the serving version has applied it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a user stores: text to be chunked, or one text with its own vector.

    ``language`` is an ISO 639-1 code; left out, it is detected from the text.
    ``vector`` is only for collections whose embedder is ``precomputed``: float32, ``(dim,)``.
    """

    id: str
    text: str = ""
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    language: str | None = None
    vector: VectorLike | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage: the unit that is embedded, searched and cited.

    ``start`` and ``end`` are character offsets (Unicode code points) into the document's text.
    """

    id: str
    document_id: str
    text: str
    ordinal: int = 0
    start: int = 0
    end: int = 0
    title: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegScore:
    """How one leg (``dense`` or ``lexical``), or the reranker (``rerank``), saw a hit.

    ``rank`` starts at 1; ``score`` is the leg's own (a cosine, a BM25 score, what a cross-encoder says);
    ``contribution`` is what the leg added to the hit's score: they sum up to it.
    """

    leg: str
    rank: int
    score: float
    contribution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One chunk that answers a query, best first in a result."""

    chunk_id: str
    document_id: str
    score: float
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    start: int = 0
    end: int = 0
    legs: tuple[LegScore, ...] = ()
    """Filled when the query asked to ``explain``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How two legs become one ranking.

    ``rrf`` is reciprocal rank fusion (Cormack, Clarke, Buettcher 2009) with constant ``k``;
    ``weighted`` is the weighted sum of min-max normalised scores.
    """

    kind: str = "weighted"
    k: int = 60
    dense_weight: float = 0.5
    lexical_weight: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerank:
    """How one query is reranked, by the reranker of the version's recipe; it needs ``text``.

    ``depth`` is the number of candidates of the fused ranking that are scored; ``weight``, 0 to 1, is the
    reranker's say in the final score. What is ``None`` the recipe decides. ``off`` leaves the fused ranking.
    """

    off: bool = False
    depth: int | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankScores:
    """What a collection's reranker makes of texts, by the order of the texts; a higher score is better."""

    scores: tuple[float, ...]
    """Of the first texts alone, where the deadline did not suffice for all."""
    complete: bool
    """Whether every text has a score."""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAdapter:
    """A map of queries in one space into another: a model that is new asks an index of the old one.

    ``kind`` is empty while there is none, and ``reason`` says why.
    """

    kind: str = ""
    from_space: str = ""
    """Of the queries."""
    into_space: str = ""
    """Of the index."""
    recall: float = 0.0
    """Of the ten nearest texts in the query's own space, the share that was found through the adapter: its
    mean over texts that it had not seen."""
    limit: float = 0.0
    """What that has to reach."""
    passed: bool = False
    """Whether it may be used."""
    texts: int = 0
    """How many it was learned from and measured on."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One search. Give ``text``, or ``vector`` with its ``space``, or both.

    ``space`` without a vector is the space whose model embeds ``text``, where that is not the serving
    version's but that of one that is being built.

    ``depth`` is the number of candidates each leg gives to fusion; the server has a default.
    ``min_seq`` waits until the serving version has applied that journal position.
    ``request_key`` is who asks, a user or a session: while a new version is tried on a share of the searches,
    equal keys are answered by the same version. Left out, the tenant and the text take its place.
    ``rerank`` asks to rerank, or not to; left out, the recipe decides.
    ``version`` is the one that answers: any that is open, whether it serves or not, and no canary instead.
    """

    text: str = ""
    vector: VectorLike | None = field(default=None, compare=False)
    space: str | None = None
    k: int = 10
    mode: Mode = Mode.HYBRID
    filter: str = ""
    language: str | None = None
    fusion: Fusion | None = None
    depth: int | None = None
    explain: bool = False
    page_token: str = ""
    min_seq: int | None = None
    request_key: str = ""
    rerank: Rerank | None = None
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """A text of ``tokens`` tokens was cut to ``limit``, which is all that its embedder reads."""

    tokens: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Hits, and all that is needed to know what answered and how completely."""

    hits: tuple[Hit, ...] = ()
    version: str = ""
    space: str = ""
    seq: int = 0
    degraded: tuple[str, ...] = ()
    """Names of the parts that did not answer (``dense``, ``lexical``, ``rerank``); empty is complete."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    next_page_token: str = ""
    plan: Mapping[str, str] = field(default_factory=dict)
    """How each leg looked and what was reranked, where it tells; filled when the query asked to
    ``explain``."""
    adapter: QueryAdapter | None = None
    """Given when the query was in another space and was mapped into the version's."""
    truncation: Truncation | None = None
    """Given when the query's text was too long for the embedder, which read only its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The acknowledgement of a write: durable at journal position ``seq``."""

    seq: int
    documents: int = 0
    """Documents written or deleted. 0 when the request changed nothing."""
    unchanged: int = 0
    """Documents that were already stored exactly so, and cost nothing."""
    chunks: int = 0


Options: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an index version pins. Each section but ``gates`` is a table with a ``kind`` and its options.

    Left-out sections and options take the server's defaults; the server refuses unknown ones.
    """

    embedder: Options = field(default_factory=dict)
    chunker: Options = field(default_factory=dict)
    index: Options = field(default_factory=dict)
    lexical: Options = field(default_factory=dict)
    tokens: Options = field(default_factory=dict)
    """What is kept of each token, for late interaction."""
    fusion: Options = field(default_factory=dict)
    reranker: Options = field(default_factory=dict)
    gates: Options = field(default_factory=dict)
    """Limits that a version has to keep before it may serve. It has no ``kind``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rebuild is."""

    chunks_done: int
    chunks_total: int
    embedded: int
    """Texts that this rebuild has embedded."""
    reused: int
    """Vectors that it found ready."""
    chunks_per_s: float
    seconds_left: float | None
    """``None`` while nothing can be said."""
    lag: int
    """Journal positions that it is behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One check before promotion: the ``value`` measured, and the ``limit`` that it is held against."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionEvent:
    """Something that happened to a version: ``event`` is the state that it came into."""

    event: str
    at: datetime
    detail: Options = field(default_factory=dict)
    """``reason``; ``gates`` as measured; of a promotion if it was ``forced``, and ``instead_of`` which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedText:
    """A text that a re-embedding job could not embed: one chunk of it, and why."""

    chunk_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long the last ``searches`` took a version, and the serving one meanwhile, in milliseconds."""

    searches: int
    p50_ms: float
    p95_ms: float
    serving_p50_ms: float | None = None
    """``None``, as ``serving_p95_ms``, while the serving version has answered none."""
    serving_p95_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The live searches that a version gets before it serves, and what was seen of them."""

    shadow: float = 0.0
    """The share of live searches that it is asked beside, 0 to 1: nobody waits for these answers."""
    canary: float = 0.0
    """The share of request keys that it answers, 0 to 1."""
    mirrored: int = 0
    """Searches that it was asked beside, and answered."""
    skipped: int = 0
    """Those that cannot be compared: further pages, vectors of another space, answers without a leg."""
    dropped: int = 0
    """Those that found its queue full."""
    failed: int = 0
    """Those that it could not answer."""
    mean_rbo: float | None = None
    """Rank-biased overlap of its documents with the serving version's, 0 to 1; ``None`` before the first."""
    mean_overlap: float | None = None
    """The share of the first ten documents that both have."""
    shadow_latency: Latency | None = None
    """Of the last mirrored searches, with the serving version's own for the same ones."""
    canary_answered: int = 0
    canary_failed: int = 0
    """Searches of its share that the serving version had to answer."""
    canary_latency: Latency | None = None
    """Of the last searches that it answered, with those that the serving version answered meanwhile."""
    stopped: str = ""
    """Why its canary share was taken away."""
    last_failure: str = ""
    """What the last search said that it could not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An index version: one recipe, and how far its indexes have followed the journal.

    ``state`` is ``building``, ``catching_up``, ``ready``, ``serving``, ``retiring``, ``deleted``,
    ``paused`` or ``failed``.
    """

    name: str
    collection: str
    state: str
    recipe: Recipe
    space: str
    dim: int
    applied_seq: int
    created_at: datetime
    stats: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    """Given while the version is being built or catches up."""
    reason: str = ""
    """Why it failed or was paused."""
    gates: tuple[Gate, ...] = ()
    """What was checked before promotion; empty until then."""
    parked: tuple[ParkedText, ...] = ()
    """Texts that re-embedding jobs could not embed, since the server started; at most the first 100."""
    traffic: Traffic | None = None
    """Given once it was sent a share of the live searches, until it serves."""
    adapter: QueryAdapter | None = None
    """The map of its space into the serving version's, once one was learned, or could not be."""
    history: tuple[VersionEvent, ...] = ()
    """What happened to it, oldest first; only where versions are asked for, not within a collection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenQuery:
    """A query, and the documents that answer it: document id -> grade, 1 and up."""

    text: str
    relevant: Mapping[str, int] = field(default_factory=dict)
    id: str = ""
    """Left out, its place among the others, from 1."""


class QuerySource(StrEnum):
    """Where the queries of a comparison came from."""

    GIVEN = "given"
    RECORDED = "recorded"
    """A sample of what clients asked since the server started."""
    GOLDEN = "golden"
    CHUNKS = "chunks"
    """The texts of some chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean, and where it lies with 95% confidence."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredVersion:
    """How one of two versions answered the queries of a comparison."""

    version: str
    failed: int
    """Queries that it did not answer, or only with a part of its legs; they have no latency."""
    p50_ms: float
    p95_ms: float
    ndcg: float | None = None
    """Mean nDCG@10 over the judged queries; ``None`` without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions that were asked the same queries, one query at a time, by turns.

    Rankings are of documents, each where its best chunk is: the versions may cut them differently.
    """

    a: MeasuredVersion
    b: MeasuredVersion
    source: QuerySource
    queries: int
    """Those that both were asked."""
    skipped: int
    """Those that one of them cannot be asked: a vector of another space, a text where there is no model."""
    overlap: float
    """The share of the first ten documents that both have: its mean over the queries."""
    rank_biased_overlap: float
    judged: int = 0
    """Those of the queries whose relevant documents are known."""
    ndcg_delta: Interval | None = None
    """nDCG@10 of ``b`` less that of ``a``, over the judged queries; ``None`` without any."""

    @property
    def better(self) -> str:
        """The version whose nDCG@10 is higher with 95% confidence; empty where that cannot be said."""
        if self.ndcg_delta is None or self.ndcg_delta.low <= 0 <= self.ndcg_delta.high:
            return ""
        return self.b.version if self.ndcg_delta.mean > 0 else self.a.version


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildPlan:
    """What a rebuild would do, and about what it would take."""

    recipe: Recipe
    """With nothing left open."""
    space: str
    dim: int
    documents: int
    chunks: int
    chunks_estimated: bool
    """Whether ``chunks`` is extrapolated from a sample: the documents have to be cut anew."""
    texts_to_embed: int
    """The others have a vector of the space already."""
    tokens: int
    """Of the texts to embed, counted by their embedder."""
    embed_s: float
    build_s: float
    disk_bytes: int
    """Of the new version alone, as ``memory_bytes``."""
    memory_bytes: int
    notes: tuple[str, ...] = ()
    """What else is worth knowing, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingText:
    """A text without a vector: the passage as it is embedded, and 16 bytes that stand for it."""

    text_hash: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTexts:
    """Distinct texts that are lent to one worker, and what has to embed them.

    Empty while all others are lent, or when nothing is missing: ``done`` tells which.
    """

    texts: tuple[MissingText, ...]
    lease: str
    """Empty where there are no texts."""
    lease_s: float
    """From now on; every ``put_embeddings`` renews it."""
    space: str
    dim: int
    embedder: Options
    """The section of the version's recipe."""
    missing: int
    """About how many distinct texts have no vector yet, these and parked ones included."""
    parked: int
    """How many of them workers have given up."""
    done: bool
    """Nothing is left to embed, and nothing is lent to anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A named set of documents, and the version that serves it."""

    name: str
    serving: Version
    documents: int
    chunks: int
    seq: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server is and what it accepts."""

    version: str
    max_message_bytes: int
    max_k: int
    max_batch: int
    embedder: Mapping[str, str]


# -- answers: the typed stream --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The passages that the answer is built from; always the first event."""

    hits: tuple[Hit, ...]
    version: str = ""
    space: str = ""
    seq: int = 0
    degraded: tuple[str, ...] = ()
    adapter: QueryAdapter | None = None
    """As in a ``SearchResult``."""
    truncation: Truncation | None = None
    """As in a ``SearchResult``."""
    standalone: Standalone | None = None
    """What was searched for, where that is not the question itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be answered, and how."""

    query: Query
    """``text`` is the question."""
    history: Sequence[Turn] = ()
    """The conversation before it, oldest first."""
    generation: Generation = field(default_factory=Generation)


AnswerEvent: TypeAlias = Contexts | TextDelta | Citation | Usage | Done
