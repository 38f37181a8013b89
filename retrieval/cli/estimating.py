"""From one chunk's bytes and a machine's rates to servers, time and money. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from retrieval.cli.rates import Basis, IndexRate, Rates
from retrieval.cli.sizing import (
    GIB,
    STORES,
    Corpus,
    Demand,
    Hardware,
    IndexChoice,
    Line,
    Part,
    Plan,
    Prices,
    parts_of,
)

_EXACT: Final = Basis.ARITHMETIC
_FREEZE_AT: Final = 2_048
_DELTA_ROWS: Final = 4 * _FREEZE_AT
"""A delta is flushed at twice ``freeze_at``, and its buffers double as they grow."""
_TRAINING_ROWS: Final = 65_536
_PROCESS: Final = 1.0 * GIB
"""A server with the default model, measured: about 950 MB (benchmarks/results/2026-11-footprint.md)."""
_FILTER_S: Final = 13e-6
"""To fill the filters with one chunk, at each start: 3 to 13 us (benchmarks/results/2026-11-footprint.md)."""
_GPU_USE: Final = 0.3
"""Of a GPU's peak that embedding is taken to reach: an assumption, to be measured."""
_MOST_SHARDS: Final = 64
_FAR: Final = 10
"""Beyond so many times the size at which it was measured, a note says so."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One collection on machines of one kind."""

    corpus: Corpus
    index: IndexChoice
    demand: Demand
    hardware: Hardware
    prices: Prices
    rates: Rates

    def plan(self) -> Plan:
        """Everything, in the order in which it is told.

        Raises InvalidArgument for a vector that the kind cannot index.
        """
        sections = (
            self._one_chunk(),
            self._a_server(),
            self._a_store(),
            self._machines(),
            self._embedding(),
            self._indexing(),
            self._costs(),
        )
        return Plan(lines=tuple(line for section in sections for line in section), notes=tuple(self._notes()))

    # -- bytes ----------------------------------------------------------------------------------

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        return parts_of(self.corpus, self.index)

    def _disk(self, where: str) -> float:
        return self.corpus.chunks * sum(part.size.disk for part in self._parts if part.where == where)

    def _memory(self, where: str) -> float:
        return self.corpus.chunks * sum(part.size.memory for part in self._parts if part.where == where)

    def _disk_of(self, name: str) -> float:
        return self.corpus.chunks * sum(part.size.disk for part in self._parts if part.name == name)

    @property
    def _in_store(self) -> bool:
        return self.index.kind in STORES

    @property
    def serving_memory(self) -> float:
        """Bytes of a server that searches and takes writes."""
        delta = 0.0 if self._in_store else _DELTA_ROWS * 4.0 * self.index.dim
        return self._memory("server") + delta + _PROCESS

    @property
    def building_memory(self) -> float:
        """Bytes while it builds another version, or merges its own, beside.

        FAISS holds the structure that it builds, once more while a graph's nodes are put in order, and what
        it is trained on. For 1,000,000 x 384 that is 0.75 x the vectors in hnsw and 0.20 x in ivf_pq; whole
        processes were measured at 0.73 x and 0.32 x (benchmarks/results/2026-11-dense-index.md).
        """
        structure = self._disk_of("structure")
        return self.serving_memory + (
            2 * structure + _TRAINING_ROWS * 4.0 * self.index.dim if structure else 0
        )

    def _one_chunk(self) -> Iterator[Line]:
        for part in self._parts:
            if part.size.disk:
                yield _line("disk of one chunk", part.name, part.size.disk, "B", part.how, part.basis)
        rate = self._rate
        if rate is not None and rate.bytes_a_row is not None and rate.dim == self.index.dim:
            dense = sum(
                part.size.disk for part in self._parts if part.name in ("raw vectors", "ids", "structure")
            )
            what = f"with {rate.rows:,} rows; by the formulas {dense:,.0f}"
            yield _line(
                "disk of one chunk", "dense index, built", rate.bytes_a_row, "B", what, self.rates.basis
            )
        for part in self._parts:
            if part.size.memory:
                yield _line("hot memory of one chunk", part.name, part.size.memory, "B", part.how, part.basis)

    def _a_server(self) -> Iterator[Line]:
        section, disk, catalog = "one server", self._disk("server"), self._disk("catalog")
        # The process, and what words and metadata take, are constants that were measured.
        mixed = Basis.PUBLISHED
        what = "hot memory, a delta, 1 GiB for process and model"
        yield _line(section, "memory, serving", self.serving_memory, "bytes", what, mixed)
        if self.building_memory > self.serving_memory:
            what = "2 structures more, and what trains them"
            yield _line(section, "memory, building beside", self.building_memory, "bytes", what, mixed)
        yield _line(section, "disk of indexes", disk, "bytes", "disk x chunks", mixed)
        what = "a new version, or a merge, beside what serves"
        yield _line(section, "disk while rebuilding", 2 * disk, "bytes", what, mixed)
        start = self.corpus.chunks * _FILTER_S
        what = "13 us a chunk to fill the filters; reading comes on top"
        yield _line(section, "start, at least", start, "seconds", what, mixed)
        yield _line("the catalog", "disk", catalog, "bytes", "once, in SQLite's layout")
        what = "embeddings of the second space"
        yield _line("the catalog", "disk with two models", self._catalog_of_two, "bytes", what)

    @property
    def _catalog_of_two(self) -> float:
        return self._disk("catalog") + self._disk_of("stored embeddings")

    def _a_store(self) -> Iterator[Line]:
        if self._in_store:
            yield _line(
                "the store", "memory of one copy", self._memory("store"), "bytes", "hot memory x chunks"
            )
            yield _line("the store", "disk of one copy", self._disk("store"), "bytes", "disk x chunks")

    # -- machines -------------------------------------------------------------------------------

    def _machines(self) -> Iterator[Line]:
        section, basis = "machines", self.rates.basis
        if self.demand.searches_s:
            what = "query's vector, service, reranking, dense leg"
            yield _line(section, "core time of a search", self._search_core_ms, "ms", what, basis)
            yield _line(
                section, "one search alone", self._search_ms, "ms", "under load it waits as well", basis
            )
        what = (
            f"most of: {self.demand.replicas} replicas, {self._by_cores} by cores, "
            f"{self._by_loop} by the event loop"
        )
        basis = basis if self.demand.searches_s else _EXACT
        yield _line(section, "servers", self.servers, "", what, basis)
        yield _line(section, "shards", self.shards, "", _SHARDS_HOW.get(self.index.kind, _LITTLE), _EXACT)
        if self._in_store:
            what = "copies x memory / what a node may hold" if self.index.kind == "qdrant" else "one a copy"
            yield _line(section, "store nodes", self.nodes, "", what)

    @property
    def _rate(self) -> IndexRate | None:
        return self.rates.indexes.get(self.index.kind)

    @property
    def _dense_ms(self) -> float:
        rate = self._rate
        return 0.0 if rate is None else rate.search_ms(self.index.kind, self.corpus.chunks, self.index.dim)

    @property
    def _search_core_ms(self) -> float:
        rates = self.rates
        rerank = rates.rerank_core_ms if self.index.tokens else 0.0
        dense = 0.0 if self._in_store else self._dense_ms
        return rates.query_core_ms + rates.service_core_ms + rerank + dense

    @property
    def _search_ms(self) -> float:
        return self.rates.search_ms + self._dense_ms

    @property
    def _by_cores(self) -> int:
        busy = self.demand.searches_s * self._search_core_ms / 1e3
        return math.ceil(busy / (self.hardware.cores * self.hardware.busy))

    @property
    def _by_loop(self) -> int:
        return math.ceil(self.demand.searches_s * self.rates.loop_ms / 1e3 / self.hardware.busy)

    @property
    def servers(self) -> int:
        """Servers of Ragstone, each with the whole of what it keeps."""
        return max(1, self.demand.replicas, self._by_cores, self._by_loop)

    @property
    def _room(self) -> float:
        return self.hardware.memory * self.hardware.filled

    @property
    def nodes(self) -> int:
        """Nodes of a store; a copy of pgvector's table is one node, however large it is."""
        if not self._in_store:
            return 0
        if self.index.kind == "pgvector":
            return self.demand.replicas
        copies = self._memory("store") * self.demand.replicas
        return max(self.demand.replicas, math.ceil(copies / self._room))

    @property
    def shards(self) -> int:
        """Parts that are searched side by side: threads of a server, or pieces on the nodes of Qdrant."""
        if self.index.kind == "qdrant":
            return max(1, math.ceil(self.nodes / self.demand.replicas))
        if self.index.kind != "flat" or not self.demand.latency_ms:
            return 1
        spare = max(1.0, self.demand.latency_ms - self.rates.search_ms)
        return max(1, min(self.hardware.cores, _MOST_SHARDS, math.ceil(self._dense_ms / spare)))

    # -- time -----------------------------------------------------------------------------------

    @property
    def _tokens(self) -> float:
        return float(self.corpus.chunks) * self.corpus.chunk_tokens

    @property
    def gpu_tokens_s(self) -> float | None:
        """Tokens a second of one GPU: measured, or ``0.3 x FLOP/s / (2 x weights)``, which none has shown.

        A token is multiplied and added with each weight once (Kaplan and others, 2020, arXiv:2001.08361).
        """
        if self.rates.embed_tokens_s_gpu is not None:
            return self.rates.embed_tokens_s_gpu
        if not self.hardware.gpu_tflops:
            return None
        return _GPU_USE * self.hardware.gpu_tflops * 1e12 / (2 * self.rates.model_parameters)

    def _embedding(self) -> Iterator[Line]:
        section, basis = "embedding", self.rates.basis
        window = self._tokens / (self.demand.rebuild_h * 3_600)
        written = self.demand.chunks_written_s * self.corpus.chunk_tokens
        one_core, cores = self.rates.embed_tokens_s_core, self.servers * self.hardware.cores
        yield _line(section, "all chunks", self._tokens, "tokens", "chunks x tokens")
        yield _line(section, "for a rebuild in time", window, "tokens/s", "tokens / window")
        if written:
            yield _line(section, "for writes", written, "tokens/s", "chunks/s x tokens")
        needed, what = window + written, f"of {one_core:,.0f} tokens/s each"
        yield _line(section, "cores, beside searches", math.ceil(needed / one_core), "", what, basis)
        what = f"on all {cores} cores of the servers"
        yield _line(section, "a full re-embedding", self._tokens / (cores * one_core), "seconds", what, basis)
        if (gpu := self.gpu_tokens_s) is not None:
            yield from self._on_gpus(gpu, needed)

    def _on_gpus(self, one: float, needed: float) -> Iterator[Line]:
        measured = self.rates.embed_tokens_s_gpu is not None
        basis = self.rates.basis if measured else _EXACT
        how = "as measured" if measured else "0.3 x FLOP/s / (2 x weights): assumed; no tokenising"
        count = self.hardware.gpus or math.ceil(needed / one)
        yield _line("embedding", "one GPU", one, "tokens/s", how, basis)
        yield _line("embedding", "GPUs", math.ceil(needed / one), "", "instead of those cores", basis)
        what = f"on {count} of them"
        yield _line("embedding", "the same on GPUs", self._tokens / (count * one), "seconds", what, basis)

    def _indexing(self) -> Iterator[Line]:
        seconds = self._rate and self._rate.build_s(self.corpus.chunks, self.index.dim)
        if not seconds:
            return
        section, basis = "indexing", self.rates.basis
        yield _line(section, "building it", seconds, "seconds", "one core, merges included; n log n", basis)
        if self.demand.chunks_written_s:
            a_row = seconds / self.corpus.chunks
            what = "writes/s x time of a row"
            yield _line(section, "cores for writes", self.demand.chunks_written_s * a_row, "", what, basis)

    # -- money ----------------------------------------------------------------------------------

    def _costs(self) -> Iterator[Line]:
        prices, section, basis = self.prices, "cost", self.rates.basis
        machines = self.servers + self.nodes
        if prices.server_month:
            what = f"{machines} x price"
            yield _line(section, "servers and nodes", machines * prices.server_month, "a month", what)
        if prices.disk_gib_month:
            disk = self.servers * 2 * self._disk("server") + self._catalog_of_two
            disk += self.demand.replicas * self._disk("store")
            what = f"{disk / GIB:,.0f} GiB, with room to rebuild"
            yield _line(section, "disks", disk / GIB * prices.disk_gib_month, "a month", what)
        if prices.core_hour:
            hours = self._tokens / self.rates.embed_tokens_s_core / 3_600
            what = f"{hours:,.1f} core hours"
            yield _line(section, "a re-embedding, cores", hours * prices.core_hour, "once", what, basis)
        if prices.gpu_hour and (gpu := self.gpu_tokens_s):
            hours = self._tokens / gpu / 3_600
            basis = _EXACT if self.rates.embed_tokens_s_gpu is None else basis
            what = f"{hours:,.1f} GPU hours"
            yield _line(section, "a re-embedding, GPUs", hours * prices.gpu_hour, "once", what, basis)

    # -- what does not fit ----------------------------------------------------------------------

    def _notes(self) -> Iterator[str]:
        room = self._room
        if self.building_memory > room:
            yield (
                f"a server needs {self.building_memory / GIB:,.0f} GiB and may fill {room / GIB:,.0f}: "
                + ("filters and words are the rest" if self._in_store else "see ivf_pq, or a store")
            )
        if self.index.kind == "pgvector" and self._memory("store") > room:
            yield "pgvector's index does not fit into one node's memory, and it has no shards: see qdrant"
        if self._search_ms > self.demand.latency_ms > 0:
            yield f"one search alone takes {self._search_ms:.1f} ms; the target is {self.demand.latency_ms:g}"
        if (each := self.demand.searches_s / self.servers) > self.rates.most_searches_s:
            yield (
                f"{each:,.0f} searches a second of a server are beyond the {self.rates.most_searches_s:,.0f} "
                "that one was seen to answer: whether more cores give them is to be measured"
            )
        if self._rate is None:
            yield f"no rate of {self.index.kind} is known: its searches and builds are in no line"
        if self.demand.searches_s and self.corpus.chunks > _FAR * self.rates.service_rows:
            yield (
                f"service time was measured with {self.rates.service_rows:,} chunks; what the lexical leg, "
                "filters and cold pages take more with these is in no line"
            )
        if self.rates.basis is Basis.PUBLISHED:
            yield f"rates are of {self.rates.source}; --measure takes this machine's"


_LITTLE: Final = "more share out hardly: 1.1 x for 2"
_SHARDS_HOW: Final = {"flat": "threads; 1.9 x for 2", "qdrant": "nodes / copies", "pgvector": "it has none"}


def _line(section: str, name: str, value: float, unit: str, how: str = "", basis: Basis = _EXACT) -> Line:
    return Line(section=section, name=name, value=value, unit=unit, basis=basis, how=how)
