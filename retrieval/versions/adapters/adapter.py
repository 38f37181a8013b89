"""An adapter: the formula, its two spaces, its bytes."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embedders.base import Space, Vectors
from ragstone.errors import CorruptIndex, InvalidArgument, SpaceMismatch

MIN_ROWS: Final = 50
"""Fewer texts than this teach nothing."""
_MAGIC: Final = b"RSADAPT1"
_CRC_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """A map of ``new_space`` into ``old_space``, the same formula for every kind.

    ``x`` becomes ``(x - shift) @ left @ right + tanh((x - shift) @ hidden + bias) @ out + offset``; what a
    kind has no use for has width 0. All arrays are float32.
    """

    kind: str
    new_space: Space
    old_space: Space
    shift: Vectors
    """``(new dim,)``"""
    left: Vectors
    """``(new dim, rank)``"""
    right: Vectors
    """``(rank, old dim)``"""
    offset: Vectors
    """``(old dim,)``"""
    hidden: Vectors
    """``(new dim, width)``"""
    bias: Vectors
    """``(width,)``"""
    out: Vectors
    """``(width, old dim)``"""

    def apply(self, vectors: Vectors) -> Vectors:
        """Rows ``(m, new dim)`` of the new space as float32 ``(m, old dim)`` of the old one.

        Rows have length 1 where the old space is normalised; a row that maps to nothing stays zero. Raises
        InvalidArgument naming ``vectors`` for another shape or what is not finite.
        """
        rows = check_rows("vectors", vectors, self.new_space) - self.shift
        mapped: Vectors = np.dot(rows @ self.left, self.right) + self.offset
        if self.hidden.size:
            mapped += np.tanh(rows @ self.hidden + self.bias) @ self.out
        return unit(mapped) if self.old_space.normalised else mapped

    def require(self, *, new_space: Space, old_space: Space) -> None:
        """Raise SpaceMismatch unless this adapter is one from ``new_space`` into ``old_space``."""
        wanted, own = (new_space.id, old_space.id), (self.new_space.id, self.old_space.id)
        if wanted != own:
            raise SpaceMismatch(
                f"the adapter maps {own[0]} into {own[1]}; it was asked to map {wanted[0]} into {wanted[1]}"
            )

    def dump(self) -> bytes:
        """The adapter with its spaces, as ``load`` reads it; equal adapters give equal bytes."""
        header = {"kind": self.kind, "new": asdict(self.new_space), "old": asdict(self.old_space)}
        buffer = io.BytesIO()
        arrays: Mapping[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
        body = buffer.getvalue()
        return _MAGIC + zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body

    @classmethod
    def load(cls, data: bytes, *, new_space: Space, old_space: Space) -> Adapter:
        """The inverse of ``dump``, for these two spaces.

        Raises CorruptIndex when ``data`` is not what was written, SpaceMismatch for other spaces.
        """
        adapter = _decode(data)
        adapter.require(new_space=new_space, old_space=old_space)
        return adapter


_ARRAYS: Final = ("shift", "left", "right", "offset", "hidden", "bias", "out")


def linear(
    kind: str,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    *,
    shift: NDArray[np.float64],
    offset: NDArray[np.float64],
    new_space: Space,
    old_space: Space,
) -> Adapter:
    """An adapter without hidden units."""
    return Adapter(
        kind=kind,
        new_space=new_space,
        old_space=old_space,
        shift=shift.astype(np.float32),
        left=left.astype(np.float32),
        right=right.astype(np.float32),
        offset=offset.astype(np.float32),
        hidden=np.zeros((new_space.dim, 0), np.float32),
        bias=np.zeros(0, np.float32),
        out=np.zeros((0, old_space.dim), np.float32),
    )


def check_sample(new: Vectors, old: Vectors, new_space: Space, old_space: Space, *, least: int) -> None:
    """Raise InvalidArgument, naming ``new`` or ``old``, unless both have rows for ``least`` texts or more."""
    check_rows("new", new, new_space)
    check_rows("old", old, old_space)
    if len(new) != len(old):
        raise InvalidArgument.at("old", f"has {len(old)} rows, new has {len(new)}: one for each text")
    if len(new) < least:
        raise InvalidArgument.at("new", f"has {len(new)} rows: at least {least} are needed")


def check_rows(name: str, vectors: Vectors, space: Space) -> Vectors:
    """``vectors`` as float32 ``(n, space.dim)``. Raises InvalidArgument naming ``name``."""
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or rows.shape[1] != space.dim:
        raise InvalidArgument.at(name, f"has shape {rows.shape}, {space.id} needs (n, {space.dim})")
    if not np.isfinite(rows).all():
        raise InvalidArgument.at(
            name, f"is not finite: row {np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]}"
        )
    return rows


def unit(rows: Vectors) -> Vectors:
    """``rows`` ``(n, dim)`` at length 1; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    scaled: Vectors = rows / lengths
    return scaled


def _decode(data: bytes) -> Adapter:
    crc = data[len(_MAGIC) : len(_MAGIC) + _CRC_BYTES]
    body = data[len(_MAGIC) + _CRC_BYTES :]
    if not data.startswith(_MAGIC) or crc != zlib.crc32(body).to_bytes(_CRC_BYTES, "little"):
        raise CorruptIndex("the adapter is damaged: fit it again")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            arrays = {name: file[name] for name in _ARRAYS}
        new_space, old_space = Space(**header["new"]), Space(**header["old"])
        return Adapter(kind=header["kind"], new_space=new_space, old_space=old_space, **arrays)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as exc:
        raise CorruptIndex("the adapter was written by another version: fit it again") from exc
