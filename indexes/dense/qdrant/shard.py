"""One shard of the embedded engine: what is asked of it, in the calling thread, and what errors mean.

The engine writes ahead to a log, so a killed process loses nothing that was written, and what it finds
again is a prefix of what was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import qdrant_edge as engine
from pyroaring import BitMap64

from indexes.base import Keys, Metric, Vectors
from indexes.dense.qdrant.options import EdgeOptions
from indexes.dense.qdrant.points import DISTANCES, PAGE, POSITION, SEQ, Among, Hits, Walk, seq_of
from ragstone.errors import BackendUnavailable, CorruptIndex

_FULL_SCAN_KB: Final = 10_000
"""Vectors of so many kilobytes that a filter allows are compared one by one."""
_QUERIES: Final = 16
"""Queries that are asked at once: the engine holds Python's lock meanwhile."""


class Shard:
    """Points under keys, and one for the position."""

    def __init__(self, shard: Any) -> None:
        self._shard = shard

    @classmethod
    def create(cls, folder: Path, dim: int, metric: Metric, options: EdgeOptions) -> Shard:
        """An empty one in a folder that is not there yet. Raises BackendUnavailable when the disk fails."""
        with _failures(BackendUnavailable):
            return cls(engine.EdgeShard.create(str(folder), _config(dim, metric, options)))

    @classmethod
    def load(cls, folder: Path) -> Shard:
        """The one in a folder. Raises CorruptIndex when it cannot be read."""
        with _failures(CorruptIndex):
            return cls(engine.EdgeShard.load(str(folder)))

    def position(self) -> int:
        """The position that was set last; 0 for none."""
        with _failures(CorruptIndex):
            points = self._shard.retrieve([POSITION], True, False)
        return seq_of(points[0].payload) if points else 0

    def keys(self) -> BitMap64:
        """All keys."""
        keys, offset = BitMap64(), None
        with _failures(CorruptIndex):
            while True:
                asked = engine.ScrollRequest(offset=offset, limit=PAGE, with_payload=False, with_vector=False)
                points, offset = self._shard.scroll(asked)
                keys.update(point.id for point in points)
                if offset is None:
                    keys.discard(POSITION)
                    return keys

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        """Add vectors; those of keys that are there are replaced."""
        rows = zip(keys.tolist(), vectors.tolist(), strict=True)
        self._update(engine.UpdateOperation.upsert_points([engine.Point(key, row) for key, row in rows]))

    def delete(self, keys: Keys) -> None:
        """Take keys away; those that are not there are no error."""
        self._update(engine.UpdateOperation.delete_points(keys.tolist()))

    def set_position(self, seq: int) -> None:
        """Write the position down."""
        self._update(engine.UpdateOperation.upsert_points([engine.Point(POSITION, {}, {SEQ: seq})]))

    def query(self, queries: Vectors, limit: int, among: Among, walk: Walk) -> Sequence[Hits]:
        """The best ``limit`` points for each row of ``queries`` ``(n, dim)``."""
        chosen, params = _filter(among), _params(walk)
        asked = [
            engine.QueryRequest(limit, query=engine.Query.Nearest(query), filter=chosen, params=params)
            for query in queries.tolist()
        ]
        answers: list[Hits] = []
        with _failures(CorruptIndex):
            for start in range(0, len(asked), _QUERIES):
                group = engine.QueryBatchRequest(asked[start : start + _QUERIES])
                answers += [
                    ([point.id for point in points], [point.score for point in points])
                    for points in self._shard.query_batch(group)
                ]
        return answers

    def flush(self) -> None:
        """Make all durable, against a loss of power too."""
        with _failures(BackendUnavailable):
            self._shard.flush()

    @property
    def segments(self) -> int:
        """How many there are."""
        return int(self._shard.info().segments_count)

    @property
    def in_graphs(self) -> int:
        """Vectors, deleted ones included, that graphs are built over."""
        return int(self._shard.info().indexed_vectors_count)

    def close(self) -> None:
        """Release its files."""
        self._shard.close()

    def _update(self, operation: Any) -> None:
        with _failures(BackendUnavailable):
            self._shard.update(operation)


@contextmanager
def _failures(error: type[BackendUnavailable | CorruptIndex]) -> Iterator[None]:
    """The engine knows one class of errors only; what they mean depends on what was asked."""
    try:
        yield
    except (BackendUnavailable, CorruptIndex):
        raise
    except Exception as exc:
        raise error(f"Qdrant's embedded engine fails: {exc}") from exc
    except BaseException as exc:
        # A panic of Rust code is no Exception, and its class cannot be imported.
        if type(exc).__name__ != "PanicException":
            raise
        raise error(f"Qdrant's embedded engine fails: {exc}") from exc


def _config(dim: int, metric: Metric, options: EdgeOptions) -> Any:
    return engine.EdgeConfig(
        vectors=engine.EdgeVectorParams(
            size=dim,
            distance=getattr(engine.Distance, DISTANCES[metric]),
            memory=engine.Memory.Cold if options.on_disk else None,
        ),
        hnsw_config=engine.HnswIndexConfig(
            m=options.m,
            ef_construct=options.ef_construct,
            full_scan_threshold=_FULL_SCAN_KB,
            max_indexing_threads=1,
        ),
        quantization_config=_quantization(options),
        # When to build is decided here, and then all is to be built.
        optimizers=engine.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
        max_search_threads=1,
        wal_enabled=True,
    )


def _quantization(options: EdgeOptions) -> Any:
    memory = engine.Memory.Pinned
    match options.quantization:
        case "scalar":
            return engine.ScalarQuantizationConfig(engine.ScalarType.Int8, quantile=0.99, memory=memory)
        case "binary":
            return engine.BinaryQuantizationConfig(memory=memory)
        case "product":
            return engine.ProductQuantizationConfig(engine.CompressionRatio.X16, memory=memory)
        case _:
            return None


def _filter(among: Among) -> Any:
    if among.ids is None:
        return None
    condition = engine.HasIdCondition(set(among.ids))
    return engine.Filter(must_not=[condition]) if among.all_but else engine.Filter(must=[condition])


def _params(walk: Walk) -> Any:
    quantization = engine.QuantizationSearchParams(
        ignore=not walk.quantised, rescore=walk.rescore, oversampling=walk.oversampling
    )
    return engine.SearchParams(walk.ef, exact=walk.exact, quantization=quantization)
