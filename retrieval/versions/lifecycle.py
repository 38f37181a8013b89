r"""The life of a version: its states, and what may be done in each. Pure.

    building -> catching_up -> ready -> serving <-> retiring -> deleted
       |  \_________|____________|________________________________^
       +-> paused, failed -> building

A version follows the journal in every state but *paused*, *failed* and *deleted*.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ragstone.errors import FailedPrecondition


class State(StrEnum):
    """Where a version is in its life."""

    BUILDING = "building"
    """It reads what was written before it began."""
    CATCHING_UP = "catching_up"
    """It reads what was written since."""
    READY = "ready"
    """It follows, was verified, and may be promoted."""
    SERVING = "serving"
    RETIRING = "retiring"
    """It served before, and still follows: a rollback needs no rebuild."""
    PAUSED = "paused"
    FAILED = "failed"
    DELETED = "deleted"


class Action(StrEnum):
    """What somebody may want to do with a version."""

    PROMOTE = "promote"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    SEND_TRAFFIC = "send traffic to"


_ALLOWED: Final = {
    Action.PROMOTE: (State.READY, State.RETIRING),
    Action.SEND_TRAFFIC: (State.READY, State.RETIRING),
    Action.PAUSE: (State.BUILDING, State.CATCHING_UP),
    Action.RESUME: (State.PAUSED, State.FAILED),
    Action.DELETE: (
        State.BUILDING,
        State.CATCHING_UP,
        State.READY,
        State.RETIRING,
        State.PAUSED,
        State.FAILED,
    ),
}

FOLLOWING: Final = frozenset(State) - {State.PAUSED, State.FAILED, State.DELETED}
"""The states in which a version is open."""


def require(action: Action, name: str, state: str) -> None:
    """Raise FailedPrecondition unless a version ``name`` in ``state`` allows ``action``."""
    allowed = _ALLOWED[action]
    if state not in allowed:
        raise FailedPrecondition(
            f"version {name} is {state}; to {action} it, it has to be {' or '.join(allowed)}",
            metadata={"version": name, "state": state},
        )
