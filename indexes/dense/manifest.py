"""The manifest: the one file that says which segments are the index. Replaced atomically, read at open.

Format 1 is JSON: ``{"crc32": ..., "manifest": {...}}``, the checksum over the compact, key-sorted inner
object. A segment's dead rows are a base64 of a 32-bit roaring bitmap in its portable serialisation.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyroaring import BitMap

from indexes.base import Metric
from indexes.dense.exact import Mask
from indexes.directory import Directory
from ragstone.errors import CorruptIndex, FailedPrecondition, NotFound

NAME: Final = "MANIFEST.json"
FORMAT: Final = 1


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Entry):
    """What a file must hold: its size in bytes, and the CRC-32 of them."""

    size: int = Field(ge=0)
    crc32: int


class SegmentEntry(_Entry):
    """One segment: its files by suffix (``keys``, ``vectors``, and ``graph`` for a graph)."""

    name: str
    kind: Literal["flat", "hnsw"]
    rows: int = Field(ge=1)
    files: dict[str, FileEntry]
    m: int | None = None
    ef: int | None = None
    """The width of a search that does not say its own."""
    recall: float | None = None
    """Recall@10 that was measured for ``ef``, where it was chosen by measuring."""


class Manifest(_Entry):
    """Everything of the index up to ``applied_seq``."""

    format: Literal[1] = FORMAT
    dim: int
    metric: Metric
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

    Raises CorruptIndex when it is damaged, FailedPrecondition when a newer program wrote it.
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
        if body["format"] != FORMAT:
            raise FailedPrecondition(
                f"{NAME} has format {body['format']}; this program reads format {FORMAT}"
            )
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
