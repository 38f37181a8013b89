"""Segments: immutable files of keys, vectors and perhaps a graph, and how they are written and opened.

``NAME.keys`` is little-endian int64, ascending; ``NAME.vectors`` little-endian float32, row by row, mapped
into memory; ``NAME.graph`` is a FAISS graph without its vectors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from indexes.base import FrozenIndex, Keys, Metric, Vectors
from indexes.dense.exact import ExactIndex, Mask
from indexes.dense.faiss_hnsw import HnswIndex, build_graph, dump_graph, load_graph
from indexes.dense.manifest import NAME as MANIFEST
from indexes.dense.manifest import FileEntry, SegmentEntry
from indexes.dense.options import HnswOptions
from indexes.dense.tuning import cheapest_width
from indexes.directory import Data, Directory, Sink
from ragstone.errors import CorruptIndex

_SWEPT: Final = re.compile(rf"\d{{8}}\.(keys|vectors|graph)|{re.escape(MANIFEST)}\.tmp")
_COPY_ROWS: Final = 4_096
_TABLE_SPAN: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """An open segment. ``keys`` ``(rows,)`` ascend, ``vectors`` ``(rows, dim)`` are mapped from disk."""

    entry: SegmentEntry
    keys: Keys
    vectors: Vectors
    index: FrozenIndex
    graph: Any = None

    def rows_of(self, keys: Keys) -> Keys:
        """The rows of those of ``keys`` that are here, dead or alive."""
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: Keys = rows[self.keys[rows] == keys]
        return found

    def mask_of(self, keys: Keys) -> Mask:
        """The rows whose key is in ``keys``, which ascend: ``(rows,)``."""
        first, last = int(self.keys[0]), int(self.keys[-1])
        keys = keys[slice(*np.searchsorted(keys, (first, last + 1)))]
        if last - first < _TABLE_SPAN * len(keys):
            # Many keys out of a narrow range: look rows up by key instead of searching each key.
            table = np.zeros(last - first + 1, dtype=np.bool_)
            table[keys - first] = True
            return table[self.keys - first]
        mask = np.zeros(len(self.keys), dtype=np.bool_)
        mask[self.rows_of(keys)] = True
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all segments of one index share."""

    directory: Directory
    dim: int
    metric: Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows that become a segment: ``vectors[take]`` of each source, in that order."""

    keys: Keys
    sources: Sequence[tuple[Vectors, Keys]]

    def blocks(self) -> Iterator[Vectors]:
        """The vectors in the order of ascending keys, a few thousand at a time."""
        source = np.concatenate([np.full(len(take), i) for i, (_, take) in enumerate(self.sources)])
        row = np.concatenate([take for _, take in self.sources])
        order = np.argsort(self.keys, kind="stable")
        for start in range(0, len(order), _COPY_ROWS):
            block = order[start : start + _COPY_ROWS]
            out = np.empty((len(block), self.sources[0][0].shape[1]), dtype=np.float32)
            for i, (vectors, _) in enumerate(self.sources):
                here = source[block] == i
                out[here] = vectors[row[block[here]]]
            yield out


def write_flat(shape: Shape, name: str, rows: Rows) -> Segment:
    """Write a segment without a graph; it is searched exactly."""
    with _removed_on_failure(shape.directory, name):
        files = _write_rows(shape, name, rows)
        entry = SegmentEntry(name=name, kind="flat", rows=len(rows.keys), files=files)
        return _assemble(shape, entry)


def write_hnsw(
    shape: Shape,
    name: str,
    rows: Rows,
    options: HnswOptions,
    *,
    base: Any = None,
    cancelled: Callable[[], bool],
) -> Segment:
    """Write a segment and its graph; ``base`` is a graph over its first rows, to be extended.

    With a ``recall_target``, the width of its searches is measured here.
    """
    with _removed_on_failure(shape.directory, name):
        files = _write_rows(shape, name, rows)
        vectors = _map_vectors(shape, name, len(rows.keys))
        graph = build_graph(
            vectors,
            shape.metric,
            m=options.m,
            ef_construction=options.ef_construction,
            base=base,
            cancelled=cancelled,
        )
        ef, recall = options.ef_search, None
        if options.recall_target is not None:
            index = HnswIndex(graph, vectors, shape.metric, ef=ef)
            ef, recall = cheapest_width(index, vectors, target=options.recall_target)
        files["graph"] = _write(shape.directory, f"{name}.graph", [dump_graph(graph)])
        entry = SegmentEntry(
            name=name, kind="hnsw", rows=len(vectors), files=files, m=options.m, ef=ef, recall=recall
        )
        return _assemble(shape, entry, graph)


def open_segment(shape: Shape, entry: SegmentEntry) -> Segment:
    """Open a segment that the manifest names. Raises CorruptIndex naming the file that is damaged."""
    for suffix, expected in entry.files.items():
        _verify(shape.directory, f"{entry.name}.{suffix}", expected)
    graph = None
    if entry.kind == "hnsw":
        name = f"{entry.name}.graph"
        vectors = _map_vectors(shape, entry.name, entry.rows)
        graph = load_graph(shape.directory.read(name), vectors, shape.metric, name=name)
    return _assemble(shape, entry, graph)


def delete_segment(directory: Directory, entry: SegmentEntry) -> None:
    """Remove a segment's files; searches that still hold it keep their mapping of them."""
    for suffix in entry.files:
        directory.delete(f"{entry.name}.{suffix}")


def sweep(directory: Directory, keep: Sequence[SegmentEntry]) -> None:
    """Remove what builds that were broken off have left behind."""
    kept = {f"{entry.name}.{suffix}" for entry in keep for suffix in entry.files}
    for name in directory.list():
        if _SWEPT.fullmatch(name) and name not in kept:
            directory.delete(name)


def live_rows(segment: Segment, alive: Mask | None) -> Keys:
    """The rows of a segment that are not dead, ascending."""
    return np.arange(len(segment.keys)) if alive is None else np.flatnonzero(alive)


def _write_rows(shape: Shape, name: str, rows: Rows) -> dict[str, FileEntry]:
    keys = np.sort(rows.keys).astype("<i8")
    return {
        "keys": _write(shape.directory, f"{name}.keys", [_bytes(keys)]),
        "vectors": _write(shape.directory, f"{name}.vectors", map(_bytes, rows.blocks())),
    }


def _write(directory: Directory, name: str, blocks: Iterator[Data] | Sequence[Data]) -> FileEntry:
    size = checksum = 0
    with directory.create(name) as sink:
        for block in blocks:
            size, checksum = _append(sink, block, size, checksum)
    return FileEntry(size=size, crc32=checksum)


def _append(sink: Sink, block: Data, size: int, checksum: int) -> tuple[int, int]:
    sink.write(block)
    return size + len(block), zlib.crc32(block, checksum)


def _bytes(array: Any) -> memoryview:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1).data


def _verify(directory: Directory, name: str, expected: FileEntry) -> None:
    try:
        data = np.memmap(directory.path(name), dtype=np.uint8, mode="r").data
    except (FileNotFoundError, ValueError) as error:
        raise CorruptIndex(f"{name} is missing or empty") from error
    except OSError as error:
        raise CorruptIndex(f"{name} cannot be read: {error.strerror}") from error
    if len(data) != expected.size:
        raise CorruptIndex(f"{name} has {len(data)} bytes instead of {expected.size}")
    if zlib.crc32(data) != expected.crc32:
        raise CorruptIndex(f"{name} fails its checksum")


def _map_vectors(shape: Shape, name: str, rows: int) -> Vectors:
    path = shape.directory.path(f"{name}.vectors")
    mapped = np.memmap(path, dtype="<f4", mode="r", shape=(rows, shape.dim))
    return mapped.view(np.ndarray)


def _assemble(shape: Shape, entry: SegmentEntry, graph: Any = None) -> Segment:
    keys = np.frombuffer(shape.directory.read(f"{entry.name}.keys"), dtype="<i8")
    vectors = _map_vectors(shape, entry.name, entry.rows)
    index: FrozenIndex = ExactIndex(vectors, shape.metric)
    if graph is not None:
        index = HnswIndex(graph, vectors, shape.metric, ef=entry.ef or 1)
    return Segment(entry=entry, keys=keys, vectors=vectors, index=index, graph=graph)


@contextmanager
def _removed_on_failure(directory: Directory, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for suffix in ("keys", "vectors", "graph"):
            try:
                directory.delete(f"{name}.{suffix}")
            except Exception:  # noqa: BLE001 - the first error is the one to report; open sweeps
                continue
        raise
