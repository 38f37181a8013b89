"""Directories: the only code that writes index files.

A file is either *created* (streamed, then synced on close) or *replaced* (written aside, synced, renamed).
Neither leaves a half-written file under its name after a crash, unless it was created and never closed;
so an index names its complete files in a manifest that it replaces last, and sweeps away the rest.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from ragstone.errors import BackendUnavailable, FailedPrecondition, InvalidArgument, NotFound

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_LOCK: Final = "LOCK"
_TEMPORARY: Final = ".tmp"

Data = bytes | bytearray | memoryview


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: Data, /) -> None:
        """Append ``data``."""
        ...


class Lock(Protocol):
    """The right to write into a directory."""

    def release(self) -> None:
        """Let others have it. Does nothing the second time."""
        ...


class Directory(Protocol):
    """A flat folder of index files. Safe to use from several threads, for different names.

    Every method raises BackendUnavailable when the disk fails or is full, and InvalidArgument for a name
    that is not one plain path component.
    """

    def create(self, name: str) -> AbstractContextManager[Sink]:
        """Stream a new file; leaving the block makes it durable, leaving by an exception removes it."""
        ...

    def atomic_write(self, name: str, data: Data) -> None:
        """Replace a file: after a crash it holds either all of the old bytes or all of the new ones."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises NotFound."""
        ...

    def path(self, name: str) -> Path:
        """Where a file lies, for readers that map it into memory or libraries that want a path."""
        ...

    def list(self) -> list[str]:
        """The names of all files and subdirectories here, sorted; the lock's own file is left out."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file. Does nothing when there is none."""
        ...

    def sync(self) -> None:
        """Make created, replaced and deleted names durable."""
        ...

    def lock(self) -> Lock:
        """Become the only writer. Raises FailedPrecondition while somebody else is."""
        ...

    def subdirectory(self, name: str) -> Directory:
        """A directory inside this one, made when missing."""
        ...

    def remove_tree(self, name: str) -> None:
        """Remove a subdirectory and all it holds. Does nothing when there is none."""
        ...


class LocalDirectory:
    """A directory of the local file system, made when missing."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)
        with _translated(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            _sync_directory(self._root.parent)

    def __repr__(self) -> str:
        return f"LocalDirectory({str(self._root)!r})"

    @contextmanager
    def create(self, name: str) -> Iterator[Sink]:
        """Stream a new file; leaving the block makes it durable, leaving by an exception removes it."""
        path = self.path(name)
        sink = _FileSink(path)
        try:
            yield sink
            sink.sync()
        except BaseException:
            sink.close()
            with suppress(OSError):
                path.unlink()
            raise
        sink.close()
        self.sync()

    def atomic_write(self, name: str, data: Data) -> None:
        """Replace a file: after a crash it holds either all of the old bytes or all of the new ones."""
        with self.create(name + _TEMPORARY) as sink:
            sink.write(data)
        path = self.path(name)
        with _translated(path):
            self.path(name + _TEMPORARY).replace(path)
        self.sync()

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises NotFound."""
        path = self.path(name)
        with _translated(path):
            return path.read_bytes()

    def path(self, name: str) -> Path:
        """Where a file lies, for readers that map it into memory or libraries that want a path."""
        return self._root / _checked(name)

    def list(self) -> list[str]:
        """The names of all files and subdirectories here, sorted; the lock's own file is left out."""
        with _translated(self._root):
            return sorted(entry.name for entry in self._root.iterdir() if entry.name != _LOCK)

    def delete(self, name: str) -> None:
        """Remove a file. Does nothing when there is none."""
        path = self.path(name)
        with _translated(path):
            path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Make created, replaced and deleted names durable."""
        with _translated(self._root):
            _sync_directory(self._root)

    def lock(self) -> Lock:
        """Become the only writer. Raises FailedPrecondition while somebody else is."""
        return _FileLock(self._root / _LOCK)

    def subdirectory(self, name: str) -> LocalDirectory:
        """A directory inside this one, made when missing."""
        return LocalDirectory(self.path(name))

    def remove_tree(self, name: str) -> None:
        """Remove a subdirectory and all it holds. Does nothing when there is none."""
        path = self.path(name)
        with _translated(path):
            if path.exists():
                shutil.rmtree(path)
        self.sync()


class _FileSink:
    def __init__(self, path: Path) -> None:
        self._path = path
        with _translated(path):
            self._file = path.open("wb")

    def write(self, data: Data, /) -> None:
        with _translated(self._path):
            self._file.write(data)

    def sync(self) -> None:
        with _translated(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        # The bytes are already synced, or the file is about to be removed: an error here means nothing.
        with suppress(OSError):
            self._file.close()


class _FileLock:
    """An advisory lock on a file, freed by the kernel when the process dies."""

    def __init__(self, path: Path) -> None:
        with _translated(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FailedPrecondition(f"{path.parent} is open in another process or place") from error
            raise BackendUnavailable(f"{path}: {error.strerror or error}") from error

    def release(self) -> None:
        """Let others have it. Does nothing the second time."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FaultyDirectory:
    """A directory whose disk dies at a chosen write: a test's way to crash an index anywhere.

    Operations that change the disk (``create``, each ``write`` to it, its closing, ``atomic_write``,
    ``delete``, ``sync``, ``remove_tree``) are counted from 1. Operation ``fail_at`` raises
    BackendUnavailable, and so do all after it until ``heal``. With ``torn``, a failing write leaves half of
    its bytes under the name of a created file. Reads always work; subdirectories share the counter.
    """

    def __init__(
        self,
        inner: LocalDirectory,
        *,
        fail_at: int | None = None,
        torn: bool = False,
        _disk: _Disk | None = None,
    ) -> None:
        self._inner = inner
        self._disk = _disk or _Disk(fail_at=fail_at, torn=torn)

    @property
    def operations(self) -> int:
        """How many operations have been counted."""
        return self._disk.count

    def fail_at(self, operation: int | None) -> None:
        """Choose the operation that fails, counted from the directory's making; ``None`` is never."""
        self._disk.fail_at = operation

    def heal(self) -> None:
        """Let all operations work again."""
        self._disk.fail_at = None

    @contextmanager
    def create(self, name: str) -> Iterator[Sink]:
        """Stream a new file; a torn one stays behind, as it would after a crash."""
        self._disk.step()
        path = self._inner.path(name)
        sink = _FileSink(path)
        try:
            yield _FaultySink(sink, self._disk)
            self._disk.step()
            sink.sync()
        finally:
            sink.close()

    def atomic_write(self, name: str, data: Data) -> None:
        """Replace a file, or leave it as it was."""
        with self.create(name + _TEMPORARY) as sink:
            sink.write(data)
        self._disk.step()
        self._inner.path(name + _TEMPORARY).replace(self._inner.path(name))
        self.sync()

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises NotFound."""
        return self._inner.read(name)

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self._inner.path(name)

    def list(self) -> list[str]:
        """The names of all files and subdirectories here."""
        return self._inner.list()

    def delete(self, name: str) -> None:
        """Remove a file."""
        self._disk.step()
        self._inner.delete(name)

    def sync(self) -> None:
        """Make names durable."""
        self._disk.step()
        self._inner.sync()

    def lock(self) -> Lock:
        """Become the only writer."""
        return self._inner.lock()

    def subdirectory(self, name: str) -> FaultyDirectory:
        """A directory on the same dying disk."""
        return FaultyDirectory(self._inner.subdirectory(name), _disk=self._disk)

    def remove_tree(self, name: str) -> None:
        """Remove a subdirectory and all it holds."""
        self._disk.step()
        self._inner.remove_tree(name)


class _Disk:
    def __init__(self, *, fail_at: int | None, torn: bool) -> None:
        self.count = 0
        self.fail_at = fail_at
        self.torn = torn

    @property
    def dead(self) -> bool:
        return self.fail_at is not None and self.count >= self.fail_at

    def step(self) -> None:
        self.count += 1
        if self.dead:
            raise BackendUnavailable(f"the disk failed at operation {self.count}")


class _FaultySink:
    def __init__(self, inner: Sink, disk: _Disk) -> None:
        self._inner = inner
        self._disk = disk

    def write(self, data: Data, /) -> None:
        alive = not self._disk.dead
        try:
            self._disk.step()
        except BackendUnavailable:
            if alive and self._disk.torn:
                view = memoryview(data).cast("B")
                self._inner.write(view[: len(view) // 2])
            raise
        self._inner.write(data)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{name!r} is not a file name")
    return name


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path.name} does not exist in {path.parent}") from error
    except OSError as error:
        raise BackendUnavailable(f"{path}: {error.strerror or error}") from error
