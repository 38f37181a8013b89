"""Segments: immutable files of keys, vectors and perhaps a structure, and how they are written and opened.

``NAME.keys`` is little-endian int64, ascending; ``NAME.vectors`` little-endian float32, row by row;
``NAME.index`` is in FAISS's own format. Vectors and structure are mapped into memory, so opening a segment
takes no longer when it is larger.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np

from indexes.base import Keys, Metric, Vectors
from indexes.dense.approximate import ApproximateIndex
from indexes.dense.devices import HOST, Device
from indexes.dense.exact import ExactIndex
from indexes.dense.kinds import STRUCTURES
from indexes.dense.manifest import NAME as MANIFEST
from indexes.dense.manifest import FileEntry, SegmentEntry
from indexes.dense.placed import PlacedFlat, PlacedIndex
from indexes.dense.rows import Mask, Rows
from indexes.dense.structures import Builder, FrozenIndex, dump, load
from indexes.directory import Data, Directory, Sink
from ragstone.errors import CorruptIndex

PlainKind = Literal["raw", "flat"]

_SUFFIXES: Final = ("keys", "vectors", "index")
_SWEPT: Final = re.compile(rf"\d{{8}}\.({'|'.join(_SUFFIXES)})|{re.escape(MANIFEST)}\.tmp")
_COPY_ROWS: Final = 512
"""NumPy copies a block without letting searches on other threads go on: more rows would show in their p99."""
_TABLE_SPAN: Final = 64
_VERIFIED_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """An open segment. ``keys`` ``(rows,)`` ascend, ``vectors`` ``(rows, dim)`` are mapped from disk."""

    entry: SegmentEntry
    keys: Keys
    vectors: Vectors
    index: FrozenIndex

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
    device: Device = HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows that become a segment: ``vectors[take]`` of each source, in that order."""

    keys: Keys
    sources: Sequence[tuple[Vectors, Rows]]

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


def write_plain(
    shape: Shape, name: str, rows: Source, *, shard: int, kind: PlainKind, why: str = ""
) -> Segment:
    """Write a segment without a structure; it is searched exactly."""
    with _removed_on_failure(shape.directory, name):
        files = _write_rows(shape, name, rows)
        return _assemble(
            shape, SegmentEntry(name=name, kind=kind, why=why, shard=shard, rows=len(rows.keys), files=files)
        )


def write_built(
    shape: Shape,
    name: str,
    rows: Source,
    builder: Builder,
    *,
    shard: int,
    base: SegmentEntry | None,
    why: str,
    cancelled: Callable[[], bool],
) -> Segment:
    """Write a segment and its structure: a new one, or that of ``base``, its first rows, extended."""
    with _removed_on_failure(shape.directory, name):
        files = _write_rows(shape, name, rows)
        vectors = _map_vectors(shape, name, len(rows.keys))
        index = builder.empty(vectors, shape.metric) if base is None else _load(shape, base, mapped=False)
        known = None if base is None else base.tuned
        tuned = builder.finish(index, vectors, shape.metric, known=known, cancelled=cancelled)
        with shape.directory.create(f"{name}.index") as file:
            sink = _Checksum(file)
            dump(index, sink)
        files["index"] = sink.entry(shape.directory, f"{name}.index")
        entry = SegmentEntry(
            name=name,
            kind=builder.kind,
            why=why,
            shard=shard,
            rows=len(vectors),
            files=files,
            shape=dict(builder.shape),
            tuning=tuned.cpu,
            gpu_tuning=tuned.gpu,
        )
        return _assemble(shape, entry)


def open_segment(shape: Shape, entry: SegmentEntry) -> Segment:
    """Open a segment that the manifest names. Raises CorruptIndex naming the file that is damaged.

    A file that nobody has written to since its checksum was taken is not read again here; ``verify`` does.
    """
    for suffix, expected in entry.files.items():
        _check(shape.directory, f"{entry.name}.{suffix}", expected)
    return _assemble(shape, entry)


def verify(directory: Directory, entry: SegmentEntry, cancelled: Callable[[], bool]) -> None:
    """Read all of a segment's files, until cancelled. Raises CorruptIndex naming the one that is damaged."""
    for suffix, expected in entry.files.items():
        name = f"{entry.name}.{suffix}"
        try:
            _verify(directory, name, expected, cancelled)
        except CorruptIndex:
            # The next open does not trust it, reads it in full, and finds the damage too.
            with suppress(OSError):
                os.utime(directory.path(name))
            raise


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


def live_rows(segment: Segment, alive: Mask | None) -> Rows:
    """The rows of a segment that are not dead, ascending."""
    return np.arange(len(segment.keys)) if alive is None else np.flatnonzero(alive)


def _write_rows(shape: Shape, name: str, rows: Source) -> dict[str, FileEntry]:
    keys = np.sort(rows.keys).astype("<i8")
    files = {
        "keys": _write(shape.directory, f"{name}.keys", [_bytes(keys)]),
        "vectors": _write(shape.directory, f"{name}.vectors", map(_bytes, rows.blocks())),
    }
    for vectors, _ in rows.sources:
        _forget_pages(vectors)
    return files


def _write(directory: Directory, name: str, blocks: Iterable[Data]) -> FileEntry:
    with directory.create(name) as file:
        sink = _Checksum(file)
        for block in blocks:
            sink.write(block)
    return sink.entry(directory, name)


class _Checksum:
    """A sink that knows what went through it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._size = self._crc32 = 0

    def write(self, data: Data, /) -> None:
        """Append ``data``."""
        self._sink.write(data)
        self._size += len(data)
        self._crc32 = zlib.crc32(data, self._crc32)

    def entry(self, directory: Directory, name: str) -> FileEntry:
        """What the manifest says of the file, once it is closed."""
        written = directory.path(name).stat().st_mtime_ns
        return FileEntry(size=self._size, crc32=self._crc32, mtime_ns=written)


def _bytes(array: Any) -> memoryview:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1).data


def _check(directory: Directory, name: str, expected: FileEntry) -> None:
    try:
        found = directory.path(name).stat()
    except FileNotFoundError as error:
        raise CorruptIndex(f"{name} is missing") from error
    except OSError as error:
        raise CorruptIndex(f"{name} cannot be read: {error.strerror}") from error
    if found.st_size != expected.size:
        raise CorruptIndex(f"{name} has {found.st_size} bytes instead of {expected.size}")
    if found.st_mtime_ns != expected.mtime_ns:
        _verify(directory, name, expected)


def _verify(
    directory: Directory, name: str, expected: FileEntry, cancelled: Callable[[], bool] = lambda: False
) -> None:
    checksum = 0
    try:
        with directory.path(name).open("rb") as file:
            while block := file.read(_VERIFIED_BYTES):
                if cancelled():
                    return
                checksum = zlib.crc32(block, checksum)
    except OSError as error:
        raise CorruptIndex(f"{name} cannot be read: {error.strerror}") from error
    if checksum != expected.crc32:
        raise CorruptIndex(f"{name} fails its checksum")


def _map_vectors(shape: Shape, name: str, rows: int) -> Vectors:
    path = shape.directory.path(f"{name}.vectors")
    mapped = np.memmap(path, dtype="<f4", mode="r", shape=(rows, shape.dim))
    return mapped.view(np.ndarray)


def _forget_pages(vectors: Vectors) -> None:
    """Take what is mapped from disk off this process's memory: copied rows are rarely asked for again."""
    base: Any = vectors
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _load(shape: Shape, entry: SegmentEntry, *, mapped: bool) -> Any:
    path = shape.directory.path(f"{entry.name}.index")
    return load(path, rows=entry.rows, dim=shape.dim, mapped=mapped)


def _assemble(shape: Shape, entry: SegmentEntry) -> Segment:
    keys = np.memmap(shape.directory.path(f"{entry.name}.keys"), dtype="<i8", mode="r").view(np.ndarray)
    vectors = _map_vectors(shape, entry.name, entry.rows)
    index: FrozenIndex = ExactIndex(vectors, shape.metric)
    if entry.tuning is not None:
        structure = STRUCTURES[entry.kind](_load(shape, entry, mapped=True))
        index = ApproximateIndex(structure, vectors, shape.metric, entry.tuning)
    return Segment(entry=entry, keys=keys, vectors=vectors, index=_placed(shape, entry, vectors, index))


def _placed(shape: Shape, entry: SegmentEntry, vectors: Vectors, host: FrozenIndex) -> FrozenIndex:
    """The segment on the index's device, if that takes it and knows how to search it; else ``host``."""
    # The lists that a search reads are the same on every device; a graph is walked by each in its own way.
    tuning = entry.gpu_tuning or (None if entry.kind == "cagra" else entry.tuning)
    if entry.tuning is not None and tuning is None:
        return host
    load = partial(_load, shape, entry, mapped=False)
    structure = shape.device.place(entry.kind, vectors, shape.metric, load)
    if structure is None:
        return host
    if tuning is None:
        return PlacedFlat(structure, host, vectors, shape.metric)
    return PlacedIndex(structure, host, vectors, shape.metric, tuning)


@contextmanager
def _removed_on_failure(directory: Directory, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for suffix in _SUFFIXES:
            try:
                directory.delete(f"{name}.{suffix}")
            except Exception:  # noqa: BLE001 - the first error is the one to report; open sweeps
                continue
        raise
