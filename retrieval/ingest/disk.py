"""Whether there is disk for another write."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

from ragstone.errors import Overloaded

_LOOK_S: Final = 1.0
_RETRY_S: Final = 30.0


def free_bytes(path: Path) -> int:
    """What is left on the file system of ``path``."""
    return shutil.disk_usage(path).free


class DiskGuard:
    """Looks at the free space under a folder, at most once a second."""

    def __init__(
        self,
        folder: Path,
        least_bytes: int,
        *,
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._folder = folder
        self._least = least_bytes
        self._free = free
        self._clock = clock
        self._left = least_bytes
        self._looked_at = -_LOOK_S

    def require_room(self) -> None:
        """Raise Overloaded when less is left than has to be."""
        if self._clock() - self._looked_at >= _LOOK_S:
            self._left, self._looked_at = self._free(self._folder), self._clock()
        if self._left < self._least:
            raise Overloaded(
                f"{self._left / 2**20:,.0f} MiB are left on the server's disk, and documents are taken from "
                f"{self._least / 2**20:,.0f} MiB on (limits.min_free_disk_bytes): free some space",
                retry_after_s=_RETRY_S,
            )
