"""Where an index in a store stood at its last checkpoint, in its folder: so it opens while the store is away,
and notices when the store comes back without what it had acknowledged."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ValidationError

from indexes.directory import Directory
from ragstone.errors import NotFound

_FILE: Final = "position.json"


class Position(BaseModel, frozen=True, extra="forbid"):
    """The journal position, and how many keys there were."""

    applied_seq: int = 0
    live: int = 0


def remember(directory: Directory, position: Position) -> None:
    """Write it down. Raises BackendUnavailable when the disk is full."""
    directory.atomic_write(_FILE, position.model_dump_json().encode())


def recall(directory: Directory) -> Position | None:
    """What was written down; None where nothing was, or nobody can read it."""
    try:
        return Position.model_validate_json(directory.read(_FILE))
    except (NotFound, ValidationError):
        return None
