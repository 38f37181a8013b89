"""Query adapters: what was learned for a version while it was built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from retrieval.store import schema
from retrieval.store.database import Database

_adapters = schema.adapters


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRow:
    """An adapter into ``old_space``: its bytes, and what was measured (JSON values)."""

    old_space: str
    measured: Mapping[str, Any]
    data: bytes


class Adapters:
    """The adapters of all versions, one each at most. They go with their collection: see ``Catalog``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, version_id: int, row: AdapterRow) -> None:
        """Keep ``row`` in place of what the version had."""
        values = {
            "version_id": version_id,
            "old_space": row.old_space,
            "measured": json.dumps(dict(row.measured), sort_keys=True),
            "data": row.data,
        }

        def work(connection: Connection) -> None:
            connection.execute(delete(_adapters).where(_adapters.c.version_id == version_id))
            connection.execute(insert(_adapters), values)

        await self._db.write(work)

    async def of(self, version_id: int) -> AdapterRow | None:
        """What was kept for a version."""
        own = select(_adapters).where(_adapters.c.version_id == version_id)
        row = await self._db.read(lambda c: c.execute(own).first())
        if row is None:
            return None
        return AdapterRow(old_space=row.old_space, measured=json.loads(row.measured), data=row.data)

    async def forget(self, version_id: int) -> None:
        """The version is gone."""
        own = delete(_adapters).where(_adapters.c.version_id == version_id)
        await self._db.write(lambda c: c.execute(own).close())
