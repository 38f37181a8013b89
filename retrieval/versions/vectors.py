"""Vectors that clients bring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragstone.errors import InvalidArgument


def check_vector(vector: object, dim: int, *, cosine: bool) -> NDArray[np.float32]:
    """``vector`` as float32 ``(dim,)``, little-endian. Raises InvalidArgument naming ``vector``."""
    row = np.asarray(vector, dtype="<f4")
    if row.shape != (dim,):
        raise InvalidArgument.at("vector", f"has shape {row.shape}, the collection's vectors have ({dim},)")
    if not np.isfinite(row).all():
        where = int(np.flatnonzero(~np.isfinite(row))[0])
        raise InvalidArgument.at("vector", f"is not finite: element {where} is {row[where]}")
    if cosine and not row.any():
        raise InvalidArgument.at("vector", "is all zeros, which has no direction to compare by cosine")
    return row
