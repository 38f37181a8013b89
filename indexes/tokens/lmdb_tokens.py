"""Token vectors in LMDB: a memory-mapped B+ tree, key -> the passage's packed vectors.

What was applied last is held in memory, packed, until a checkpoint or until there is much of it; then one
transaction writes it together with the journal position, so a crash leaves one state or the other. What is
not durable yet is read again from the journal. LMDB uses the pages of deleted passages again; its file does
not shrink.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import lmdb
import numpy as np
from numpy.typing import NDArray

from indexes.base import IndexStats, Keys, TokenBatch, Vectors
from indexes.directory import Directory
from indexes.tokens.cache import PassageCache
from indexes.tokens.compression import Packed, fit_projection, join, max_sim, narrow, pack, unit, unpack
from indexes.tokens.frequencies import Frequencies
from indexes.tokens.options import TokenOptions, parse_options
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition, InvalidArgument

T = TypeVar("T")

_FOLDER: Final = "lmdb"
_COPYING: Final = "COPYING"
"""A file that is there while the folder beside it is not yet the whole copy."""
_MAP_BYTES: Final = 1 << 40
"""Address space that is reserved, not disk: the most that one index may grow to."""
_FLUSH_BYTES: Final = 16 * 2**20
_CACHE_BYTES: Final = 64 * 2**20
_FIT_TOKENS: Final = 20_000
"""From so many tokens on there are enough to choose directions by."""
_BREATH_S: Final = 0.0005
_KEY: Final = struct.Struct(">q")
_SEQ: Final = b"seq"
_DIM: Final = b"dim"
_PROJECTION: Final = b"projection"
_FREQUENCIES: Final = b"frequencies"


async def open_index(*, directory: Directory, dim: int, options: Mapping[str, object]) -> LmdbTokenIndex:
    """Open the index in ``directory``, or make an empty one there, of token vectors with ``dim`` numbers.

    Raises InvalidArgument for wrong options, CorruptIndex for damaged files or those of another dimension,
    FailedPrecondition while somebody else has it open, BackendUnavailable when the disk fails.
    """
    parsed = parse_options(options)
    return await asyncio.to_thread(_open, directory, dim, parsed)


def _open(directory: Directory, dim: int, options: TokenOptions) -> LmdbTokenIndex:
    lock = directory.lock()
    try:
        if _COPYING in directory.list():
            directory.remove_tree(_FOLDER)
            directory.delete(_COPYING)
        directory.subdirectory(_FOLDER)
        return LmdbTokenIndex(_Store(directory.path(_FOLDER), dim), dim, options, close_lock=lock.release)
    except BaseException:
        lock.release()
        raise


class _State(NamedTuple):
    """What the index holds, as of one journal position."""

    seq: int
    fresh: dict[int, bytes]
    """Packed, not yet written."""
    gone: frozenset[int]
    """Deleted, not yet erased."""
    stored: int
    """Passages that are written, those that are gone as well."""


class LmdbTokenIndex:
    """A token follower. One thread packs and writes, another answers."""

    def __init__(
        self, store: _Store, dim: int, options: TokenOptions, *, close_lock: Callable[[], None]
    ) -> None:
        self._store = store
        self._dim = dim
        self._options = options
        self._close_lock = close_lock
        self._frequencies = store.frequencies
        # One object, changed by one assignment: whoever reads it from another thread sees no half of a batch.
        self._state = _State(store.seq, {}, frozenset(), store.entries())
        self._cache = PassageCache(_CACHE_BYTES)
        self._sampled = 0
        self._products = np.zeros((dim, dim), np.float32)
        """Of so many tokens, each number with each other: to choose directions by."""
        self._damage = ""
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="tokens-apply")
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="tokens-ask")

    @property
    def applied_seq(self) -> int:
        """The last journal position whose passages have scores."""
        return self._state.seq

    async def apply(self, batch: TokenBatch, *, seq: int) -> None:
        """Make ``batch`` visible. Does nothing when ``seq <= applied_seq``.

        Raises InvalidArgument for a wrong dimension or a vector that is not finite; then nothing of the
        batch is visible.
        """
        await self._run(self._writing, self._apply, batch, seq)

    async def max_sim(self, query: Vectors, ids: Keys, keys: Sequence[int]) -> NDArray[np.float32]:
        """Float32 ``(len(keys),)``, NaN for a key that is not there. Raises InvalidArgument, CorruptIndex."""
        self._check(query, ids)
        try:
            return await self._run(self._asking, self._max_sim, query, ids, keys)
        except CorruptIndex as exc:
            self._damage = exc.message
            raise

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal.

        Raises BackendUnavailable when the disk fails; the index serves on, as durable as it was before.
        """
        await self._run(self._writing, self._flush)
        return self._store.seq

    async def copy_to(self, directory: Directory) -> None:
        """Make all that is applied now durable, here and in ``directory``, which is empty.

        Raises BackendUnavailable when the disk fails.
        """
        await self._run(self._writing, self._copy, directory)

    def stats(self) -> IndexStats:
        """What the index holds now; ``details`` tells the numbers a vector has."""
        state, projection = self._state, self._store.projection
        return IndexStats(
            live=state.stored + len(state.fresh) - len(state.gone),
            deleted=len(state.gone),
            pending=len(state.fresh),
            bytes_on_disk=self._store.bytes_on_disk(),
            damage=self._damage,
            details={
                "durable_seq": self._store.seq,
                "dim": self._dim if projection is None else projection.shape[1],
            },
        )

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        await asyncio.to_thread(self._close)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: object) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(pool, partial(work, *args))
        except RuntimeError as exc:
            raise FailedPrecondition("the token index is closed") from exc
        return await future

    def _close(self) -> None:
        for pool in (self._writing, self._asking):
            pool.shutdown()
        self._store.close()
        self._close_lock()

    # -- the writing thread ----------------------------------------------------------------------

    def _apply(self, batch: TokenBatch, seq: int) -> None:
        state = self._state
        if seq <= state.seq:
            return
        for tokens, ids in zip(batch.tokens, batch.ids, strict=True):
            self._check(tokens, ids)
        arriving = dict(zip(map(int, batch.keys), zip(batch.tokens, batch.ids, strict=True), strict=True))
        leaving = set(map(int, batch.deleted))
        stored = self._store.known([*arriving, *leaving])
        known = stored | state.fresh.keys()
        arriving = {key: both for key, both in arriving.items() if key not in known}
        fresh = {}
        for key, (tokens, _) in arriving.items():
            fresh[key] = self._pack(tokens)
            # Joining holds the interpreter now and then: a search that waits for it comes in between.
            time.sleep(_BREATH_S)
        self._frequencies = self._frequencies.plus([ids for _, ids in arriving.values()])
        fresh = {key: data for key, data in (state.fresh | fresh).items() if key not in leaving}
        self._state = _State(seq, fresh, state.gone | (leaving & stored), state.stored)
        if sum(map(len, fresh.values())) >= _FLUSH_BYTES:
            self._flush()

    def _check(self, tokens: Vectors, ids: Keys) -> None:
        if tokens.ndim != 2 or tokens.shape[1] != self._dim or not len(tokens) or len(ids) != len(tokens):
            shapes = f"token vectors have shape {tokens.shape}, their ids {ids.shape}"
            raise InvalidArgument(f"{shapes}; the index has (n, {self._dim}) and (n,)")
        if not np.isfinite(tokens).all():
            raise InvalidArgument("token vectors are not finite")

    def _pack(self, tokens: Vectors) -> bytes:
        projection = self._store.projection
        if projection is not None:
            tokens = unit(tokens @ projection)
        elif self._sampled < _FIT_TOKENS:
            self._products += tokens.T @ tokens
            self._sampled += len(tokens)
        return pack(join(tokens, self._options.keep))

    def _flush(self) -> None:
        state = self._state
        if state.seq == self._store.seq:
            return
        fresh, projection = state.fresh, self._fitted()
        if projection is not None:
            fresh = {key: narrow(data, projection) for key, data in fresh.items()}
        # The other thread looks at what is fresh first, then at what is stored: so it misses nothing.
        self._store.write(fresh, state.gone, state.seq, self._frequencies, projection)
        # As long as the state says what is gone, nobody asks the cache for it.
        self._cache.forget(state.gone | fresh.keys())
        self._state = _State(state.seq, {}, frozenset(), self._store.entries())

    def _copy(self, directory: Directory) -> None:
        self._flush()
        directory.atomic_write(_COPYING, b"")
        directory.subdirectory(_FOLDER)
        self._store.copy_to(directory.path(_FOLDER))
        directory.subdirectory(_FOLDER).sync()
        directory.delete(_COPYING)
        directory.sync()

    def _fitted(self) -> Vectors | None:
        """The directions to keep from now on, once there are enough tokens to choose them by."""
        width = self._options.dim
        if self._store.projection is not None or width >= self._dim or self._sampled < _FIT_TOKENS:
            return None
        return fit_projection(self._products, width)

    # -- the asking thread -------------------------------------------------------------------------

    def _max_sim(self, query: Vectors, ids: Keys, keys: Sequence[int]) -> NDArray[np.float32]:
        weights = self._frequencies.weights(ids)
        found = self._passages(keys)
        scores = np.full(len(keys), np.nan, np.float32)
        # Passages from before the directions were chosen have all their numbers.
        for width in {packed.width for packed in found.values()}:
            places = [i for i, key in enumerate(keys) if key in found and found[key].width == width]
            scores[places] = max_sim(self._in_width(query, width), weights, [found[keys[i]] for i in places])
        return scores

    def _passages(self, keys: Sequence[int]) -> dict[int, Packed]:
        """Those of ``keys`` that are there."""
        known, state = self._cache.generation, self._state
        live = [key for key in keys if key not in state.gone]
        found = self._cache.get(live)
        fresh = {key: unpack(data) for key in live if (data := state.fresh.get(key))}
        wanted = [key for key in live if key not in found and key not in fresh]
        stored = {key: unpack(data) for key, data in self._store.read(wanted).items()}
        self._cache.put(stored, known)
        return found | stored | fresh

    def _in_width(self, query: Vectors, width: int) -> Vectors:
        if width == self._dim:
            return query
        projection = self._store.projection
        if projection is None or projection.shape[1] != width:
            raise CorruptIndex(f"a passage's token vectors have {width} numbers")
        return query @ projection


class _Store:
    """What is durable: passages, the journal position, and the directions that are kept."""

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        with _translated():
            self._env = lmdb.open(str(path), map_size=_MAP_BYTES, max_dbs=2, readahead=False, lock=False)
            self._passages: Any = self._env.open_db(b"passages")
            self._facts: Any = self._env.open_db(b"facts")
            with self._env.begin(db=self._facts) as reading:
                seq, known = reading.get(_SEQ), reading.get(_DIM)
                projection, counted = reading.get(_PROJECTION), reading.get(_FREQUENCIES)
        if known is not None and _KEY.unpack(known)[0] != dim:
            self._env.close()
            raise CorruptIndex(f"the token index has vectors of {_KEY.unpack(known)[0]} numbers, not {dim}")
        self._dim = dim
        self.seq: int = 0 if seq is None else _KEY.unpack(seq)[0]
        self.frequencies = Frequencies() if counted is None else Frequencies.load(counted)
        self.projection: Vectors | None = None
        if projection is not None:
            self.projection = np.frombuffer(projection, "<f4").astype(np.float32).reshape(dim, -1)

    def read(self, keys: Sequence[int]) -> dict[int, bytes]:
        """Those of ``keys`` that are there, and what they hold."""
        if not keys:
            return {}
        with _translated(), self._env.begin(db=self._passages) as reading:
            found = reading.cursor().getmulti([_KEY.pack(key) for key in keys])
        return {_KEY.unpack(key)[0]: data for key, data in found}

    def known(self, keys: Sequence[int]) -> set[int]:
        """Those of ``keys`` that are there."""
        with _translated(), self._env.begin(db=self._passages) as reading:
            cursor = reading.cursor()
            return {key for key in keys if cursor.set_key(_KEY.pack(key))}

    def write(
        self,
        put: Mapping[int, bytes],
        erase: frozenset[int],
        seq: int,
        frequencies: Frequencies,
        projection: Vectors | None,
    ) -> None:
        """All of it, or nothing. Raises BackendUnavailable when the disk fails or is full."""
        before = self.projection
        if projection is not None:
            # Before anybody can read what is written in these directions.
            self.projection = projection
        try:
            with _translated(), self._env.begin(write=True) as writing:
                for key in sorted(put):
                    writing.put(_KEY.pack(key), put[key], db=self._passages)
                for key in sorted(erase):
                    writing.delete(_KEY.pack(key), db=self._passages)
                writing.put(_SEQ, _KEY.pack(seq), db=self._facts)
                writing.put(_FREQUENCIES, frequencies.dump(), db=self._facts)
                writing.put(_DIM, _KEY.pack(self._dim), db=self._facts)
                if projection is not None:
                    writing.put(_PROJECTION, projection.astype("<f4").tobytes(), db=self._facts)
        except BaseException:
            self.projection = before
            raise
        self.seq = seq

    def copy_to(self, path: Path) -> None:
        """Write what is durable, without gaps, into another folder, and sync it."""
        with _translated():
            self._env.copy(str(path), compact=True)
            with (path / "data.mdb").open("rb") as file:
                os.fsync(file.fileno())

    def entries(self) -> int:
        """Passages that are stored."""
        with self._env.begin(db=self._passages) as reading:
            return int(reading.stat(self._passages)["entries"])

    def bytes_on_disk(self) -> int:
        """What the file takes."""
        return (self._path / "data.mdb").stat().st_blocks * 512

    def close(self) -> None:
        """Unmap the file."""
        self._env.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.PageNotFoundError) as exc:
        raise CorruptIndex(f"the token index is damaged: {exc}") from exc
    except (lmdb.Error, OSError) as exc:
        raise BackendUnavailable(f"the token index cannot be read or written: {exc}") from exc
