"""How far the followers of all servers are: what none of them needs any more can go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, Insert, func, insert, literal, select, update

from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.values import utc_now

_followers = schema.followers
_versions = schema.versions
_counts = schema.chunk_counts


class Followers:
    """The positions from which the servers of one catalog need the journal.

    ``server`` names this one, the same one after a restart. A server that was not heard of for ``ttl_s`` is
    waited for no longer: should it come back, its indexes begin anew.
    """

    def __init__(
        self, db: Database, *, server: str, ttl_s: float, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._db = db
        self._server = server
        self._ttl = timedelta(seconds=ttl_s)
        self._clock = clock

    async def enter(self, version_id: int) -> bool:
        """This server is about to follow a version: from the beginning, unless it has said otherwise.

        Whether the others have waited for it: then nothing was pruned that its index has still to hear of.
        """
        now = self._clock()
        waited = select(_followers.c.server).where(
            _followers.c.server == self._server,
            _followers.c.version_id == version_id,
            _followers.c.seen_at >= now - self._ttl,
        )
        seen = (
            update(_followers)
            .where(_followers.c.server == self._server, _followers.c.version_id == version_id)
            .values(seen_at=now)
        )

        def work(connection: Connection) -> bool:
            was_waited_for = connection.execute(waited).first() is not None
            if not connection.execute(seen).rowcount:
                connection.execute(self._first(version_id, 0, now))
            return was_waited_for

        return await self._db.write(work)

    async def report(self, positions: Mapping[int, int]) -> None:
        """This server's versions, by their ids, need the journal from these positions on."""
        now = self._clock()

        def work(connection: Connection) -> None:
            for version_id, seq in positions.items():
                values = {"durable_seq": seq, "seen_at": now}
                own = (
                    update(_followers)
                    .where(_followers.c.server == self._server, _followers.c.version_id == version_id)
                    .values(values)
                )
                if not connection.execute(own).rowcount:
                    connection.execute(self._first(version_id, seq, now))

        await self._db.write(work)

    def _first(self, version_id: int, seq: int, now: datetime) -> Insert:
        """The first report of a version, unless it is gone."""
        row = select(
            literal(self._server), _versions.c.id, literal(seq), literal(now, _followers.c.seen_at.type)
        ).where(_versions.c.id == version_id)
        return insert(_followers).from_select(["server", "version_id", "durable_seq", "seen_at"], row)

    async def slowest(self, collection_id: int, chunking: str) -> int | None:
        """The position that all followers of a chunking have made durable; None while there are none."""
        since = self._clock() - self._ttl
        least = (
            select(func.min(_followers.c.durable_seq))
            .join(_versions, _versions.c.id == _followers.c.version_id)
            .where(
                _versions.c.collection_id == collection_id,
                _versions.c.chunking == chunking,
                _versions.c.state != "deleted",
                _followers.c.seen_at >= since,
            )
        )
        return await self._db.read(lambda c: c.execute(least).scalar())

    async def pruned(self, collection_id: int, chunking: str) -> int:
        """The position up to which deletions of a chunking were forgotten: who is behind it begins anew."""
        mark = select(_counts.c.pruned_seq).where(
            _counts.c.collection_id == collection_id, _counts.c.chunking == chunking
        )
        return await self._db.read(lambda c: c.execute(mark).scalar()) or 0
