"""What is to be removed from stores that others share: written down before, crossed out when it is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.values import utc_now

_doomed = schema.doomed_indexes


@dataclass(frozen=True, slots=True)
class DoomedIndex:
    """An index by its name in the store that its ``kind`` and ``options`` tell."""

    name: str
    kind: str
    options: Mapping[str, Any]


class DoomedIndexes:
    """The list of a catalog. It may name what lives on or is gone already, and never misses anything."""

    def __init__(self, db: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._db = db
        self._clock = clock

    async def add(self, indexes: Sequence[DoomedIndex], *, due_in_s: float = 0.0) -> None:
        """Have these removed, at the earliest in so many seconds. One that is listed is listed anew."""
        due = self._clock() + timedelta(seconds=due_in_s)
        rows = [
            {
                "name": index.name,
                "kind": index.kind,
                "options": json.dumps(index.options, sort_keys=True),
                "due_at": due,
            }
            for index in indexes
        ]

        def work(connection: Connection) -> None:
            connection.execute(delete(_doomed).where(_doomed.c.name.in_([row["name"] for row in rows])))
            connection.execute(insert(_doomed), rows)

        if rows:
            await self._db.write(work)

    async def due(self) -> Sequence[DoomedIndex]:
        """Those whose time has come, by name."""
        come = select(_doomed).where(_doomed.c.due_at <= self._clock()).order_by(_doomed.c.name)
        return await self._db.read(
            lambda c: [DoomedIndex(row.name, row.kind, json.loads(row.options)) for row in c.execute(come)]
        )

    async def remove(self, name: str) -> None:
        """Cross one out."""
        await self._db.write(lambda c: c.execute(delete(_doomed).where(_doomed.c.name == name)).close())
