"""The folders of an embedded index: one that counts, and perhaps one that is to take its place.

Graphs are built over a copy, which takes the place of the original when it has all that was written since.
A file says which folder counts; a crash leaves that as it was, and the other is swept away.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from indexes.base import Metric
from indexes.directory import Directory
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition, NotFound

_CURRENT: Final = "CURRENT.json"
_FORMAT: Final = 1
_SAID_CHARS: Final = 300
_TRIES: Final = 40
_PAUSE_S: Final = 0.05
_PROGRAM: Final = Path(__file__).with_name("optimising.py")

log = structlog.get_logger(__name__)


class _Current(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    folder: str
    dim: int
    metric: Metric


class Generations:
    """The folders in ``directory`` of an index of that dimension and metric. Blocking, but for ``build``."""

    def __init__(self, directory: Directory, *, dim: int, metric: Metric) -> None:
        self._directory = directory
        self._dim = dim
        self._metric = metric

    def current(self) -> str | None:
        """The folder that counts, None for none yet; all others are removed.

        Raises CorruptIndex, and FailedPrecondition when it was made for another dimension or metric.
        """
        current = self._read()
        for name in self._directory.list():
            if name not in (current, _CURRENT):
                self._remove(name)
        return current

    def fresh(self) -> str:
        """The name of a folder that is not there yet."""
        return uuid4().hex

    def path(self, folder: str) -> Path:
        """Where a folder is."""
        return self._directory.path(folder)

    def copy(self, folder: str) -> str:
        """A copy of a folder that nobody writes to meanwhile."""
        copied = self.fresh()
        try:
            shutil.copytree(self.path(folder), self.path(copied), copy_function=_copy_sparse)
        except OSError as exc:
            self.remove(copied)
            raise BackendUnavailable(f"the index cannot be copied: {exc}") from exc
        return copied

    async def build(self, folder: str) -> None:
        """Build the graphs of a shard that is not open. Raises BackendUnavailable when that fails."""
        builder = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(_PROGRAM),
            str(self.path(folder)),
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await builder.communicate()
        finally:
            if builder.returncode is None:
                builder.kill()
                await builder.wait()
        if builder.returncode:
            why = said.decode(errors="replace").strip()[-_SAID_CHARS:]
            raise BackendUnavailable(f"building graphs ended with {builder.returncode}: {why}")

    def switch_to(self, folder: str) -> None:
        """From now on, and after a crash, this one counts."""
        current = _Current(format=_FORMAT, folder=folder, dim=self._dim, metric=self._metric)
        self._directory.atomic_write(_CURRENT, current.model_dump_json().encode())

    def remove(self, folder: str) -> None:
        """Remove a folder."""
        self._directory.remove_tree(folder)

    def size(self, folder: str) -> int:
        """Bytes on disk."""
        return sum(map(_size, self.path(folder).rglob("*")))

    def _read(self) -> str | None:
        try:
            current = _Current.model_validate_json(self._directory.read(_CURRENT))
        except NotFound:
            return None
        except ValidationError as exc:
            raise CorruptIndex(f"{_CURRENT} is damaged") from exc
        if (current.dim, current.metric) != (self._dim, self._metric):
            raise FailedPrecondition(
                f"the index was made for dimension {current.dim}, {current.metric}, "
                f"not for dimension {self._dim}, {self._metric}"
            )
        return current.folder

    def _remove(self, name: str) -> None:
        if not self._directory.path(name).is_dir():
            self._directory.delete(name)
            return
        for _ in range(_TRIES):
            # The builder of a process that was killed may still be writing into it, for a moment.
            with suppress(NotFound, BackendUnavailable):
                self._directory.remove_tree(name)
                return
            time.sleep(_PAUSE_S)
        log.warning("folder_left_behind", path=str(self._directory.path(name)))


def _size(path: Path) -> int:
    # A file may be gone between its listing and this look at it.
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _copy_sparse(source: str, target: str) -> None:
    """Copy a file without its holes: the engine reserves far more than it needs."""
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        os.truncate(writing.fileno(), size)
        start = 0
        while start < size:
            try:
                start = os.lseek(reading.fileno(), start, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
                return
            end = os.lseek(reading.fileno(), start, os.SEEK_HOLE)
            while start < end:
                copied = os.copy_file_range(reading.fileno(), writing.fileno(), end - start, start, start)
                if not copied:
                    return
                start += copied
