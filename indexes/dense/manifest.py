"""The manifest: the one file that says which segments are the index. Replaced atomically, read at open.

Format 2 is JSON: ``{"crc32": ..., "manifest": {...}}``, the checksum over the compact, key-sorted inner
object. A segment's dead rows are a base64 of a 32-bit roaring bitmap in its portable serialisation.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from bisect import bisect_left
from operator import attrgetter
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyroaring import BitMap

from indexes.base import Metric
from indexes.dense.rows import Mask
from indexes.directory import Directory
from ragstone.errors import CorruptIndex, FailedPrecondition, NotFound

NAME: Final = "MANIFEST.json"
FORMAT: Final = 2
_NEAR: Final = 0.02
"""A recall so far below its target may be chance, or the end of what a healthy structure can do."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Entry):
    """What a file must hold: its size in bytes, and the CRC-32 of them."""

    size: int = Field(ge=0)
    crc32: int
    mtime_ns: int
    """When it was last written to. A file with this time is trusted at open, and read again afterwards."""


class Point(_Entry):
    """One measured effort: its recall@10, and the microseconds of one query of a batch on one thread."""

    effort: int
    recall: float
    us: float


class Tuning(_Entry):
    """The effort of a search that does not say its own, and what was measured to choose it."""

    effort: int
    oversampling: int
    """Candidates of lossy codes for each row wanted."""
    rows: int
    """How many rows there were when this was measured."""
    recall: float
    """Recall@10 on held-out rows."""
    target: float | None
    """What was aimed at; None where the recipe fixes the effort."""
    scan_us: float
    """Microseconds to compare a query with one row."""
    curve: tuple[Point, ...]
    """Ascending by effort."""

    @property
    def falls_short(self) -> bool:
        """Whether no effort came near the target: a graph of many equal vectors falls into pieces."""
        return self.target is not None and self.recall < self.target - _NEAR

    def walk_us(self, effort: int) -> float:
        """Microseconds of a search of any ``effort``: between the points and beyond them, in proportion."""
        if not self.curve:
            return 0.0
        after = bisect_left(self.curve, effort, key=attrgetter("effort"))
        if after == 0:
            return self.curve[0].us
        low = self.curve[after - 1]
        if after == len(self.curve):
            return low.us * effort / low.effort
        high = self.curve[after]
        return low.us + (high.us - low.us) * (effort - low.effort) / (high.effort - low.effort)


class Tuned(_Entry):
    """How a structure is searched by the CPU, and by a GPU where one has measured it."""

    cpu: Tuning
    gpu: Tuning | None = None


class SegmentEntry(_Entry):
    """One segment: its files by suffix (``keys``, ``vectors``, and ``index`` for a FAISS structure)."""

    name: str
    kind: Literal["raw", "flat", "hnsw", "ivf_flat", "ivf_pq", "cagra"]
    """A ``raw`` segment is searched exactly, as a ``flat`` one, until it gets its final form."""
    why: str = ""
    """Why it is of this kind."""
    shard: int = 0
    rows: int = Field(ge=1)
    files: dict[str, FileEntry]
    shape: dict[str, int | str] = {}
    """The options that its structure was built with."""
    tuning: Tuning | None = None
    gpu_tuning: Tuning | None = None
    """What a GPU measured, if there was one that had room."""

    @property
    def tuned(self) -> Tuned | None:
        """How its structure is searched; None without a structure."""
        return None if self.tuning is None else Tuned(cpu=self.tuning, gpu=self.gpu_tuning)

    @property
    def measured_rows(self) -> int:
        """How many rows there were when the structure was last tuned."""
        return 0 if self.tuning is None else self.tuning.rows


class Manifest(_Entry):
    """Everything of the index up to ``applied_seq``."""

    format: Literal[2] = FORMAT
    dim: int
    metric: Metric
    shards: int
    applied_seq: int
    segments: tuple[SegmentEntry, ...] = ()
    dead: dict[str, str] = {}
    """Segment name -> its dead rows; left out where there are none."""


def write_manifest(directory: Directory, manifest: Manifest) -> None:
    """Make ``manifest`` the index, durably."""
    body = manifest.model_dump(mode="json")
    document = {"crc32": zlib.crc32(_canonical(body)), "manifest": body}
    directory.atomic_write(NAME, json.dumps(document, indent=1, sort_keys=True).encode())


def read_manifest(directory: Directory) -> Manifest | None:
    """The manifest, or None where no index was ever written.

    Raises CorruptIndex when it is damaged or of an older format, which is not read any more; both are
    mended by building the index again. Raises FailedPrecondition when a newer program wrote it.
    """
    try:
        data = directory.read(NAME)
    except NotFound:
        return None
    try:
        document = json.loads(data)
        body, checksum = document["manifest"], document["crc32"]
        if zlib.crc32(_canonical(body)) != checksum:
            raise CorruptIndex(f"{NAME} fails its checksum")
        if body["format"] > FORMAT:
            raise FailedPrecondition(
                f"{NAME} has format {body['format']}; this program reads format {FORMAT}"
            )
        if body["format"] < FORMAT:
            raise CorruptIndex(f"{NAME} has format {body['format']}, older than {FORMAT}")
        return Manifest.model_validate(body)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CorruptIndex(f"{NAME} is damaged") from error


def encode_dead(alive: Mask) -> str:
    """The rows where ``alive`` is False, as the manifest keeps them."""
    return b64encode(BitMap(np.flatnonzero(~alive).tolist()).serialize()).decode()


def decode_dead(text: str, rows: int) -> Mask:
    """The mask ``(rows,)`` that ``encode_dead`` was given. Raises CorruptIndex."""
    try:
        dead = BitMap.deserialize(b64decode(text, validate=True))
    except ValueError as error:
        raise CorruptIndex(f"{NAME} holds a damaged bitmap") from error
    alive = np.ones(rows, dtype=np.bool_)
    if dead and dead.max() >= rows:
        raise CorruptIndex(f"{NAME} names dead rows that its segment does not have")
    alive[np.asarray(dead.to_array(), dtype=np.int64)] = False
    return alive


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
