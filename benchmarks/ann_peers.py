"""The libraries that the local index is measured beside, each at its own best and on one thread.

All hold unit vectors under row numbers and compare by inner product. A library that is not installed is
left out: its class raises ImportError when it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeAlias

import faiss
import numpy as np

from benchmarks.texts import DIM
from indexes.base import Keys, Vectors

K: Final = 10
M: Final = 16
EF_CONSTRUCTION: Final = 200
EF_SEARCH: Final = 64

Found: TypeAlias = Keys | Sequence[Sequence[int]]
"""What a side found, best first: one row a query, in the form in which it answers."""


class Side(Protocol):
    """Something that can be asked, the local index or a peer."""

    async def search(self, queries: Vectors) -> Found:
        """The best ``K`` for each of ``queries`` ``(n, DIM)``."""
        ...


class Peer(Side, Protocol):
    """A library's index: rows are added once, in order, then it is finished and searched."""

    @classmethod
    def create(cls, folder: Path, rows: int) -> Self:
        """An empty one, with room for ``rows``, that lives in ``folder``."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The one that was finished in ``folder``."""
        ...

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add rows."""
        ...

    def finish(self) -> None:
        """Build what is still to be built, and write everything to the folder."""
        ...

    def wide(self, ef: int) -> Self:
        """The same index, searched ``ef`` wide."""
        ...


class Erasing(Peer, Protocol):
    """A peer that can also take rows away."""

    def delete(self, keys: Keys) -> None:
        """Take rows away."""
        ...


@dataclass(frozen=True, eq=False)
class RawFaiss:
    """``faiss.IndexHNSWFlat``, nothing around it; ``params`` also say which rows a filter allows."""

    graph: Any
    params: Any
    folder: Path

    @classmethod
    def create(cls, folder: Path, rows: int) -> Self:
        """See ``Peer``."""
        faiss.omp_set_num_threads(1)
        folder.mkdir(parents=True, exist_ok=True)
        graph = faiss.IndexHNSWFlat(DIM, M, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        return cls(graph, _hnsw_params(), folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See ``Peer``."""
        faiss.omp_set_num_threads(1)
        return cls(faiss.read_index(str(folder / "index")), _hnsw_params(), folder)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """See ``Peer``."""
        if keys[0] != self.graph.ntotal:
            raise ValueError("FAISS numbers its rows itself: they must come in order")
        self.graph.add(vectors)

    def finish(self) -> None:
        """See ``Peer``."""
        faiss.write_index(self.graph, str(self.folder / "index"))

    def wide(self, ef: int) -> Self:
        """See ``Peer``."""
        return replace(self, params=_hnsw_params(ef))

    def among(self, allowed: Keys) -> Self:
        """The same index, where only the rows ``allowed`` count."""
        mask = np.zeros(self.graph.ntotal, dtype=np.bool_)
        mask[allowed] = True
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        return replace(self, params=_hnsw_params(self.params.efSearch, sel=selector))

    async def search(self, queries: Vectors) -> Found:
        """See ``Side``."""
        found: Keys = self.graph.search(queries, K, params=self.params)[1]
        return found


@dataclass(frozen=True, eq=False)
class RawFlat:
    """``faiss.IndexFlat``: all vectors in memory, and exact."""

    index: Any
    folder: Path

    @classmethod
    def create(cls, folder: Path, rows: int) -> Self:
        """See ``Peer``."""
        faiss.omp_set_num_threads(1)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(faiss.IndexFlat(DIM, faiss.METRIC_INNER_PRODUCT), folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See ``Peer``."""
        faiss.omp_set_num_threads(1)
        return cls(faiss.read_index(str(folder / "index")), folder)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """See ``Peer``."""
        self.index.add(vectors)

    def finish(self) -> None:
        """See ``Peer``."""
        faiss.write_index(self.index, str(self.folder / "index"))

    def wide(self, ef: int) -> Self:
        """Exact search has no width."""
        return self

    async def search(self, queries: Vectors) -> Found:
        """See ``Side``."""
        found: Keys = self.index.search(queries, K)[1]
        return found


@dataclass(frozen=True, eq=False)
class Hnswlib:
    """``hnswlib.Index``. The width is the index's own: the last ``wide`` counts."""

    index: Any
    folder: Path

    @classmethod
    def create(cls, folder: Path, rows: int) -> Self:
        """See ``Peer``."""
        import hnswlib

        folder.mkdir(parents=True, exist_ok=True)
        index = hnswlib.Index(space="ip", dim=DIM)
        index.init_index(max_elements=rows, M=M, ef_construction=EF_CONSTRUCTION)
        return cls(index, folder).wide(EF_SEARCH)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See ``Peer``."""
        import hnswlib

        index = hnswlib.Index(space="ip", dim=DIM)
        index.load_index(str(folder / "index"))
        return cls(index, folder).wide(EF_SEARCH)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """See ``Peer``."""
        self.index.add_items(vectors, keys, num_threads=1)

    def delete(self, keys: Keys) -> None:
        """Mark rows as deleted; they stay in the graph."""
        for key in keys.tolist():
            self.index.mark_deleted(key)

    def finish(self) -> None:
        """See ``Peer``."""
        self.index.save_index(str(self.folder / "index"))

    def wide(self, ef: int) -> Self:
        """See ``Peer``."""
        self.index.set_ef(ef)
        return self

    async def search(self, queries: Vectors) -> Found:
        """See ``Side``."""
        found: Keys = self.index.knn_query(queries, k=K, num_threads=1)[0]
        return found


@dataclass(frozen=True, eq=False)
class QdrantEdge:
    """``qdrant_edge.EdgeShard``: one segment under HNSW, the library's own thresholds, no write-ahead log."""

    library: Any
    shard: Any
    params: Any
    filter: Any = None

    @classmethod
    def create(cls, folder: Path, rows: int) -> Self:
        """See ``Peer``."""
        import qdrant_edge

        folder.mkdir(parents=True, exist_ok=True)
        shard = qdrant_edge.EdgeShard.create(str(folder), _shard_config(qdrant_edge))
        return cls(qdrant_edge, shard, qdrant_edge.SearchParams(EF_SEARCH))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See ``Peer``."""
        import qdrant_edge

        shard = qdrant_edge.EdgeShard.load(str(folder), _shard_config(qdrant_edge))
        return cls(qdrant_edge, shard, qdrant_edge.SearchParams(EF_SEARCH))

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """See ``Peer``."""
        rows = zip(keys.tolist(), vectors.tolist(), strict=True)
        points = [self.library.Point(key, vector) for key, vector in rows]
        self.shard.update(self.library.UpdateOperation.upsert_points(points))

    def delete(self, keys: Keys) -> None:
        """Delete rows."""
        self.shard.update(self.library.UpdateOperation.delete_points(keys.tolist()))

    def label(self, name: str, keys: Keys) -> None:
        """Give the rows ``keys`` the payload ``name``, and index it: what this library filters by."""
        update, kind = self.library.UpdateOperation, self.library.PayloadSchemaType.Keyword
        self.shard.update(update.create_field_index(name, kind))
        self.shard.update(update.set_payload(keys.tolist(), {name: "in"}))

    def finish(self) -> None:
        """See ``Peer``."""
        self.shard.optimize()
        self.shard.flush()

    def wide(self, ef: int) -> Self:
        """See ``Peer``."""
        return replace(self, params=self.library.SearchParams(ef))

    def among(self, label: str) -> Self:
        """The same index, where only the rows under ``label`` count."""
        labelled = self.library.FieldCondition(label, self.library.MatchValue("in"))
        return replace(self, filter=self.library.Filter(must=[labelled]))

    async def search(self, queries: Vectors) -> Found:
        """See ``Side``."""
        asked = [self._request(query) for query in queries]
        if len(asked) == 1:
            return [_ids(self.shard.query(asked[0]))]
        return [_ids(points) for points in self.shard.query_batch(self.library.QueryBatchRequest(asked))]

    def _request(self, query: Vectors) -> Any:
        nearest = self.library.Query.Nearest(query)
        return self.library.QueryRequest(K, query=nearest, filter=self.filter, params=self.params)


BASE: Final = "raw FAISS HNSW"
"""What the others are compared with."""

QDRANT: Final = "qdrant-edge"

ERASING_PEERS: Final[Mapping[str, type[Erasing]]] = {"hnswlib": Hnswlib, QDRANT: QdrantEdge}
PEERS: Final[Mapping[str, type[Peer]]] = {"raw FAISS flat": RawFlat, BASE: RawFaiss, **ERASING_PEERS}


def _hnsw_params(ef: int = EF_SEARCH, **more: Any) -> Any:
    return faiss.SearchParametersHNSW(efSearch=ef, **more)


def _shard_config(library: Any) -> Any:
    return library.EdgeConfig(
        vectors=library.EdgeVectorParams(size=DIM, distance=library.Distance.Dot),
        hnsw_config=library.HnswIndexConfig(
            m=M, ef_construct=EF_CONSTRUCTION, full_scan_threshold=10_000, max_indexing_threads=1
        ),
        optimizers=library.EdgeOptimizersConfig(default_segment_number=1),
        max_search_threads=1,
        wal_enabled=False,
    )


def _ids(points: Iterable[Any]) -> list[int]:
    return [point.id for point in points]
