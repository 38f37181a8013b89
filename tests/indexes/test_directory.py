"""Directories: what is under a name is whole, and only one writer has it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from indexes.directory import FaultyDirectory, LocalDirectory
from ragstone.errors import BackendUnavailable, FailedPrecondition, InvalidArgument, NotFound


@pytest.fixture
def directory(tmp_path: Path) -> LocalDirectory:
    return LocalDirectory(tmp_path / "index")


def test_a_created_file_holds_all_that_was_streamed_into_it(directory: LocalDirectory) -> None:
    with directory.create("data") as sink:
        sink.write(b"one ")
        sink.write(memoryview(b"two"))
    assert directory.read("data") == b"one two"
    assert directory.path("data").read_bytes() == b"one two"


def test_a_file_whose_writer_failed_is_removed(directory: LocalDirectory) -> None:
    def write_half() -> None:
        with directory.create("data") as sink:
            sink.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert directory.list() == []


def test_an_atomic_write_replaces_the_whole_file(directory: LocalDirectory) -> None:
    directory.atomic_write("data", b"old and long")
    directory.atomic_write("data", b"new")
    assert directory.read("data") == b"new"
    assert directory.list() == ["data"]


def test_deleting_what_is_not_there_is_no_error(directory: LocalDirectory) -> None:
    directory.atomic_write("data", b"")
    directory.delete("data")
    directory.delete("data")
    directory.remove_tree("nowhere")
    assert directory.list() == []


def test_reading_what_is_not_there_is_not_found(directory: LocalDirectory) -> None:
    with pytest.raises(NotFound, match="nothing"):
        directory.read("nothing")


def test_subdirectories_are_made_listed_and_removed_with_all_they_hold(directory: LocalDirectory) -> None:
    directory.subdirectory("inner").atomic_write("data", b"x")
    assert directory.list() == ["inner"]
    assert directory.subdirectory("inner").read("data") == b"x"
    directory.remove_tree("inner")
    assert directory.list() == []


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/etc/passwd", "a\x00", "-x"])
def test_only_plain_names_are_taken(directory: LocalDirectory, name: str) -> None:
    with pytest.raises(InvalidArgument):
        directory.path(name)


def test_a_second_writer_is_refused_until_the_first_lets_go(
    directory: LocalDirectory, tmp_path: Path
) -> None:
    lock = directory.lock()
    with pytest.raises(FailedPrecondition, match="is open"):
        LocalDirectory(tmp_path / "index").lock()
    lock.release()
    lock.release()
    directory.lock().release()
    assert directory.list() == []


def test_a_full_disk_is_backend_unavailable_and_leaves_the_old_file(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.atomic_write("data", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackendUnavailable, match="No space left"):
        directory.atomic_write("data", b"new")
    assert directory.read("data") == b"old"
    assert directory.list() == ["data"]


def test_a_faulty_directory_works_until_its_chosen_operation_and_never_after(
    directory: LocalDirectory,
) -> None:
    faulty = FaultyDirectory(directory, fail_at=2)
    faulty.delete("data")
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            faulty.delete("data")
    assert faulty.operations == 3
    faulty.heal()
    faulty.atomic_write("data", b"x")
    assert faulty.read("data") == b"x"


def test_a_torn_write_leaves_half_of_its_bytes(directory: LocalDirectory) -> None:
    def write_twice() -> None:
        with FaultyDirectory(directory, fail_at=3, torn=True).create("data") as sink:
            sink.write(b"1234")
            sink.write(b"5678")

    with pytest.raises(BackendUnavailable):
        write_twice()
    assert directory.read("data") == b"123456"


@pytest.mark.parametrize("operation", range(1, 6))
def test_an_atomic_write_on_a_dying_disk_leaves_old_or_new(directory: LocalDirectory, operation: int) -> None:
    directory.atomic_write("data", b"old")
    with pytest.raises(BackendUnavailable):
        FaultyDirectory(directory, fail_at=operation, torn=True).atomic_write("data", b"new")
    assert directory.read("data") in (b"old", b"new")
