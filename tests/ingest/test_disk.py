"""A disk that is nearly full takes no document."""

from pathlib import Path

import pytest

from ragstone.errors import Overloaded
from retrieval.ingest.disk import DiskGuard

MIB = 2**20


class Disk:
    """A disk whose free space, and a clock whose time, a test sets."""

    def __init__(self) -> None:
        self.free, self.now = 100 * MIB, 0.0

    def guard(self, least: int) -> DiskGuard:
        return DiskGuard(Path(), least, free=lambda _: self.free, clock=lambda: self.now)


def test_documents_are_refused_when_less_is_left_than_has_to_be() -> None:
    disk = Disk()
    guard = disk.guard(50 * MIB)
    guard.require_room()
    disk.free, disk.now = 40 * MIB, 2.0
    with pytest.raises(Overloaded, match=r"40 MiB are left.*from 50 MiB on") as refusal:
        guard.require_room()
    assert refusal.value.retry_after_s


def test_they_are_taken_again_when_space_was_freed() -> None:
    disk = Disk()
    guard = disk.guard(150 * MIB)
    with pytest.raises(Overloaded):
        guard.require_room()
    disk.free, disk.now = 200 * MIB, 2.0
    guard.require_room()


def test_the_disk_is_asked_once_a_second() -> None:
    disk = Disk()
    guard = disk.guard(50 * MIB)
    guard.require_room()
    disk.free, disk.now = 0, 0.5
    guard.require_room()


def test_no_limit_refuses_nothing() -> None:
    disk = Disk()
    disk.free = 0
    disk.guard(0).require_room()


def test_the_real_disk_is_asked_by_default(tmp_path: Path) -> None:
    DiskGuard(tmp_path, 1).require_room()
    with pytest.raises(Overloaded):
        DiskGuard(tmp_path, 2**70).require_room()
