"""Arrays in the binary form that PostgreSQL reads: whole blocks, not one Python object for each number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from psycopg import postgres
from psycopg.adapt import Dumper
from psycopg.pq import Format
from pyroaring import BitMap64

from indexes.base import Keys, Vectors

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"
_ROWS_AT_ONCE: Final = 1_024
_BIGINT: Final = postgres.types["int8"]


@dataclass(frozen=True, slots=True)
class KeyArray:
    """Keys as a parameter of type ``int8[]``."""

    keys: Keys


def keys_of(allow: BitMap64) -> Keys:
    """The keys of a set, ascending."""
    return np.asarray(allow.to_array(), dtype=np.uint64).astype(np.int64)


class KeyArrayDumper(Dumper):
    """Dumps a ``KeyArray``."""

    format = Format.BINARY
    oid = _BIGINT.array_oid

    def dump(self, obj: KeyArray) -> bytes:
        """Dimensions, flags, the type; the length and the lower bound; then each key with its size."""
        count = len(obj.keys)
        header = np.array([1, 0, _BIGINT.oid, count, 1], ">i4")
        elements = np.empty(count, [("size", ">i4"), ("key", ">i8")])
        elements["size"], elements["key"] = 8, obj.keys
        return header.tobytes() + elements.tobytes()


def copied_rows(keys: Keys, vectors: Vectors) -> list[bytes]:
    """Rows of ``(key bigint, embedding vector)`` for ``COPY ... (FORMAT BINARY)``, in blocks."""
    dim = vectors.shape[1]
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("key_size", ">i4"),
            ("key", ">i8"),
            ("size", ">i4"),
            ("dim", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f4", (dim,)),
        ]
    )
    blocks = []
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        block = np.zeros(len(keys[some]), row)
        block["fields"], block["key_size"], block["size"] = 2, 8, 4 + 4 * dim
        block["key"], block["dim"], block["vector"] = keys[some], dim, vectors[some]
        blocks.append(block.tobytes())
    return blocks
