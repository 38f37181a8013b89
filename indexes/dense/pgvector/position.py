"""Where an index stood at its last checkpoint, in its folder: so it opens while the database is away, and
notices when the database comes back without what it had committed."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ValidationError

from indexes.dense.pgvector.table import State
from indexes.directory import Directory
from ragstone.errors import NotFound

_FILE: Final = "position.json"


class _Position(BaseModel, frozen=True, extra="forbid"):
    applied_seq: int
    live: int


def remember(directory: Directory, state: State) -> None:
    """Write it down. Raises what a full disk raises."""
    position = _Position(applied_seq=state.applied_seq, live=state.live)
    directory.atomic_write(_FILE, position.model_dump_json().encode())


def recall(directory: Directory) -> State | None:
    """What was written down; None where nothing was, or nobody can read it."""
    try:
        position = _Position.model_validate_json(directory.read(_FILE))
    except (NotFound, ValidationError):
        return None
    return State(position.applied_seq, position.live)
