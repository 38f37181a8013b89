"""The shares of live searches that versions have, and what was observed of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from ragstone.errors import Conflict, FailedPrecondition
from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.queries import AnyRow
from retrieval.store.values import TrafficRow, VersionRow, utc_now

CANARY_STOPPED: Final = "canary_stopped"
"""The event of a version whose canary share was taken away."""

_traffic = schema.version_traffic
_versions = schema.versions


class Shares:
    """Who gets live searches before it serves. Rows go when a version changes its state: see ``Catalog``."""

    def __init__(self, db: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._db = db
        self._clock = clock

    async def of(self, collection_id: int) -> Mapping[int, TrafficRow]:
        """What the versions of a collection have, or had, by their ids."""
        own = (
            select(_traffic)
            .join(_versions, _versions.c.id == _traffic.c.version_id)
            .where(_versions.c.collection_id == collection_id)
        )
        return await self._db.read(lambda c: {row.version_id: _row(row) for row in c.execute(own)})

    async def set(self, version: VersionRow, traffic: TrafficRow) -> None:
        """Store the shares of a version, and what was observed so far.

        Raises Conflict when it is in another state than ``version`` says, FailedPrecondition naming the
        canary of the collection when that is another one.
        """

        def work(connection: Connection) -> None:
            state = select(_versions.c.state).where(_versions.c.id == version.id)
            if connection.execute(state).scalar() != version.state:
                raise Conflict(f"version {version.name} is no longer {version.state}")
            if traffic.canary:
                _refuse_second_canary(connection, version)
            row = {
                "shadow": traffic.shadow,
                "canary": traffic.canary,
                "observed": json.dumps(traffic.observed),
            }
            own = update(_traffic).where(_traffic.c.version_id == version.id).values(row)
            if not connection.execute(own).rowcount:
                connection.execute(insert(_traffic), {"version_id": version.id, **row})

        await self._db.write(work)

    async def observe(self, version_id: int, observed: Mapping[str, Any]) -> None:
        """Replace what was observed; nothing happens when the version has no traffic any more."""
        own = (
            update(_traffic).where(_traffic.c.version_id == version_id).values(observed=json.dumps(observed))
        )
        await self._db.write(lambda connection: connection.execute(own))

    async def stop_canary(
        self, version_id: int, observed: Mapping[str, Any], *, detail: Mapping[str, Any]
    ) -> None:
        """Take a version's canary share away, and write the event down with its ``detail`` (JSON values)."""
        event = {
            "version_id": version_id,
            "event": CANARY_STOPPED,
            "detail": json.dumps(detail, sort_keys=True),
            "created_at": self._clock(),
        }
        own = (
            update(_traffic)
            .where(_traffic.c.version_id == version_id)
            .values(canary=0.0, observed=json.dumps(observed))
        )

        def work(connection: Connection) -> None:
            # Promoted or deleted meanwhile: then there is nothing to take away.
            if connection.execute(own).rowcount:
                connection.execute(insert(schema.version_events), event)

        await self._db.write(work)


def _refuse_second_canary(connection: Connection, version: VersionRow) -> None:
    others = (
        select(_versions.c.name)
        .join(_traffic, _traffic.c.version_id == _versions.c.id)
        .where(
            _versions.c.collection_id == version.collection_id,
            _versions.c.id != version.id,
            _traffic.c.canary > 0,
        )
    )
    name = connection.execute(others).scalar()
    if name is not None:
        raise FailedPrecondition(
            f"version {name} is the canary of this collection, which has one at a time; set its share to 0",
            metadata={"canary": name},
        )


def _row(row: AnyRow) -> TrafficRow:
    return TrafficRow(shadow=row.shadow, canary=row.canary, observed=json.loads(row.observed))
