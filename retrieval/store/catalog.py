"""Collections and their versions, and the pointer to the version that serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Delete, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ragstone.errors import AlreadyExists, Conflict, NotFound
from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.queries import AnyRow, require_collection, take
from retrieval.store.values import CollectionRow, VersionEvent, VersionRow, utc_now

__all__ = ["Catalog", "CollectionRow", "VersionEvent", "VersionRow"]

UNFINISHED: Final = ("building", "catching_up", "paused")
"""States of a rebuild that is under way; a collection has one at a time."""
PURGE_ROWS: Final = 5000
"""Rows that one transaction of a purge removes: other writes get their turn in between."""

_collections = schema.collections
_versions = schema.versions
_events = schema.version_events
_traffic = schema.version_traffic
_sequences = schema.sequences
_REVISION: Final = "catalog"
_there = _versions.c.state != "deleted"

_COLLECTION = select(
    _collections.c.id,
    _collections.c.name,
    _collections.c.generation,
    _collections.c.serving_version_id,
    _collections.c.created_at,
).where(_collections.c.name.is_not(None))


class Catalog:
    """What exists, and what serves."""

    def __init__(self, db: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._db = db
        self._clock = clock

    async def revision(self) -> int:
        """Grows with every change of collections, versions and who serves."""
        last = select(_sequences.c.last).where(_sequences.c.name == _REVISION)
        return await self._db.read(lambda c: c.execute(last).scalar()) or 0

    async def identity(self) -> str:
        """What tells this catalog from every other one: 32 hex digits, the same for ever."""
        return await self._db.read(lambda c: c.execute(select(schema.catalog_identity.c.id)).scalar_one())

    async def create(self, name: str, *, recipe: str, space: str, dim: int, chunking: str) -> CollectionRow:
        """A new collection, served by its first version ``v1`` of ``recipe`` (JSON). Raises AlreadyExists."""
        now = self._clock()

        def work(connection: Connection) -> CollectionRow:
            take(connection, _REVISION, 1)
            row = {"name": name, "generation": 1, "documents": 0, "created_at": now}
            collection_id = _insert(connection, _collections, row, f"collection {name} exists already")
            version_id = _insert(
                connection,
                _versions,
                {
                    "collection_id": collection_id,
                    "name": "v1",
                    "state": "serving",
                    "recipe": recipe,
                    "space": space,
                    "dim": dim,
                    "chunking": chunking,
                    "created_at": now,
                },
                "",
            )
            connection.execute(
                update(_collections)
                .where(_collections.c.id == collection_id)
                .values(serving_version_id=version_id)
            )
            return CollectionRow(
                id=collection_id, name=name, generation=1, serving_version_id=version_id, created_at=now
            )

        return await self._db.write(work)

    async def get(self, name: str) -> CollectionRow:
        """The collection called ``name``. Raises NotFound."""
        named = _COLLECTION.where(_collections.c.name == name)
        row = await self._db.read(lambda c: c.execute(named).first())
        if row is None:
            raise NotFound(f"there is no collection {name}")
        return _collection(row)

    async def list(self) -> Sequence[CollectionRow]:
        """All collections, by name."""
        ordered = _COLLECTION.order_by(_collections.c.name)
        return await self._db.read(lambda c: [_collection(row) for row in c.execute(ordered)])

    async def delete(self, name: str) -> Sequence[int]:
        """Remove a collection with all that it holds; the ids of its versions, whose files can go.

        It is gone for everybody at once and for good; its rows follow in small transactions, which
        ``purge`` finishes after a crash. Vectors stay, see ``Embeddings.sweep``. Raises NotFound.
        """

        def hide(connection: Connection) -> int:
            take(connection, _REVISION, 1)
            named = update(_collections).where(_collections.c.name == name).values(name=None)
            row = connection.execute(named.returning(_collections.c.id)).first()
            if row is None:
                raise NotFound(f"there is no collection {name}")
            return int(row.id)

        collection_id = await self._db.write(hide)
        return await self._purge(collection_id)

    async def purge(self) -> Sequence[int]:
        """Finish deletions that a crash interrupted; the ids of their versions. Call it at start."""
        hidden = select(_collections.c.id).where(_collections.c.name.is_(None))
        collection_ids = await self._db.read(lambda c: c.execute(hidden).scalars().all())
        return [gone for collection_id in collection_ids for gone in await self._purge(collection_id)]

    async def _purge(self, collection_id: int) -> Sequence[int]:
        # Chunks before documents: a reader's live chunk always finds its document.
        for table in (schema.chunks, schema.documents):
            some = select(table.c.key).where(table.c.collection_id == collection_id).limit(PURGE_ROWS)
            rows = delete(table).where(table.c.key.in_(some))
            while await self._db.write(partial(_count, rows)):
                pass

        def finish(connection: Connection) -> Sequence[int]:
            for table in (schema.requests, schema.journal, schema.chunk_counts, schema.golden_queries):
                connection.execute(delete(table).where(table.c.collection_id == collection_id))
            versions = select(_versions.c.id).where(_versions.c.collection_id == collection_id)
            for table in (_events, _traffic, schema.adapters, schema.followers):
                connection.execute(delete(table).where(table.c.version_id.in_(versions)))
            own = delete(_versions).where(_versions.c.collection_id == collection_id)
            ids = connection.execute(own.returning(_versions.c.id)).scalars().all()
            connection.execute(delete(_collections).where(_collections.c.id == collection_id))
            return sorted(ids)

        return await self._db.write(finish)

    async def versions(self, collection_id: int) -> Sequence[VersionRow]:
        """The versions of a collection, oldest first, without the deleted ones."""
        own = select(_versions).where(_versions.c.collection_id == collection_id, _there)
        ordered = own.order_by(_versions.c.id)
        return await self._db.read(lambda c: [_version(row) for row in c.execute(ordered)])

    async def version(self, collection_id: int, name: str) -> VersionRow:
        """The version called ``name``. Raises NotFound."""
        named = select(_versions).where(
            _versions.c.collection_id == collection_id, _versions.c.name == name, _there
        )
        row = await self._db.read(lambda c: c.execute(named).first())
        if row is None:
            raise NotFound(f"there is no version {name}")
        return _version(row)

    async def version_ids(self) -> set[int]:
        """The ids of all versions of all collections, without the deleted ones."""
        return await self._db.read(lambda c: set(c.execute(select(_versions.c.id).where(_there)).scalars()))

    async def spaces(self) -> set[str]:
        """The spaces of all versions of all collections."""
        used = select(_versions.c.space).distinct().where(_there)
        return await self._db.read(lambda c: set(c.execute(used).scalars()))

    async def begin_version(
        self,
        collection_id: int,
        *,
        recipe: str,
        space: str,
        dim: int,
        chunking: str,
        state: str = "building",
    ) -> VersionRow:
        """A further version in ``state``, named after the newest: ``v2`` follows ``v1``.

        Raises Conflict naming the one that is unfinished, if there is any, and NotFound.
        """
        now = self._clock()

        def work(connection: Connection) -> VersionRow:
            take(connection, _REVISION, 1)
            require_collection(connection, collection_id)
            own = select(_versions.c.name, _versions.c.state).where(
                _versions.c.collection_id == collection_id
            )
            known = connection.execute(own).all()
            for name, its_state in known:
                if its_state in UNFINISHED:
                    raise Conflict(f"version {name} is {its_state} already; wait for it, or delete it")
            newest = max((int(name[1:]) for name, _ in known), default=0)
            row: dict[str, Any] = {
                "collection_id": collection_id,
                "name": f"v{newest + 1}",
                "state": state,
                "recipe": recipe,
                "space": space,
                "dim": dim,
                "chunking": chunking,
                "created_at": now,
            }
            return VersionRow(id=_insert(connection, _versions, row, ""), **row)

        return await self._db.write(work)

    async def set_state(
        self, version_id: int, state: str, *, expect: str, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Compare and set a version's state, and write the event down with its ``detail`` (JSON values).

        What traffic the version had ends with the state that it had it in.
        Raises Conflict when the state is not ``expect``, or the version is gone.
        """

        def work(connection: Connection) -> None:
            self._move(connection, version_id, state, expect=expect, detail=detail or {})

        await self._db.write(work)

    async def promote(
        self,
        collection: CollectionRow,
        version_id: int,
        *,
        expect: str,
        detail: Mapping[str, Any] | None = None,
    ) -> CollectionRow:
        """Let another version serve, if nobody changed that since ``collection`` was read.

        The one that served until now is *retiring*, and no version of the collection has traffic any more: it
        was compared with that one. Raises Conflict when somebody did, or the version is no longer ``expect``;
        NotFound when the collection is gone.
        """

        def work(connection: Connection) -> CollectionRow:
            require_collection(connection, collection.id)
            before = collection.serving_version_id
            point = (
                update(_collections)
                .where(_collections.c.id == collection.id, _collections.c.generation == collection.generation)
                .values(serving_version_id=version_id, generation=collection.generation + 1)
            )
            if not connection.execute(point).rowcount:
                raise Conflict("the serving version was changed meanwhile")
            own = select(_versions.c.id).where(_versions.c.collection_id == collection.id)
            connection.execute(delete(_traffic).where(_traffic.c.version_id.in_(own)))
            self._move(connection, before, "retiring", expect="serving", detail={})
            told = {**(detail or {}), "instead_of": before}
            self._move(connection, version_id, "serving", expect=expect, detail=told)
            return _collection(
                connection.execute(_COLLECTION.where(_collections.c.id == collection.id)).one()
            )

        return await self._db.write(work)

    async def events(self, version_id: int) -> Sequence[VersionEvent]:
        """What happened to a version, oldest first."""
        own = select(_events).where(_events.c.version_id == version_id).order_by(_events.c.id)
        return await self._db.read(lambda c: [_event(row) for row in c.execute(own)])

    def _move(
        self, connection: Connection, version_id: int, state: str, *, expect: str, detail: Mapping[str, Any]
    ) -> None:
        take(connection, _REVISION, 1)
        change = (
            update(_versions)
            .where(_versions.c.id == version_id, _versions.c.state == expect)
            .values(state=state)
        )
        if not connection.execute(change).rowcount:
            raise Conflict(f"the version is no longer {expect}")
        connection.execute(delete(_traffic).where(_traffic.c.version_id == version_id))
        row = {
            "version_id": version_id,
            "event": state,
            "detail": json.dumps(detail, sort_keys=True),
            "created_at": self._clock(),
        }
        connection.execute(insert(_events), row)

    async def counts(self, collection_id: int) -> tuple[int, int]:
        """How many documents there are, and how many live chunks of the serving version's chunking."""
        live = schema.chunk_counts.c
        counted = (
            select(_collections.c.documents, live.live)
            .join(_versions, _versions.c.id == _collections.c.serving_version_id)
            .outerjoin(
                schema.chunk_counts,
                (live.collection_id == _collections.c.id) & (live.chunking == _versions.c.chunking),
            )
            .where(_collections.c.id == collection_id, _collections.c.name.is_not(None))
        )
        row = await self._db.read(lambda c: c.execute(counted).first())
        if row is None:
            raise NotFound(f"there is no collection number {collection_id}")
        return row.documents, row.live or 0


def _count(rows: Delete, connection: Connection) -> int:
    return connection.execute(rows).rowcount


def _insert(connection: Connection, table: Table, row: dict[str, Any], taken: str) -> int:
    """Insert ``row``; its id. Raises AlreadyExists, saying ``taken``, when its name is."""
    try:
        return int(connection.execute(insert(table).returning(table.c.id), row).scalar_one())
    except IntegrityError as exc:
        raise AlreadyExists(taken) from exc


def _collection(row: AnyRow) -> CollectionRow:
    return CollectionRow(
        id=row.id,
        name=row.name,
        generation=row.generation,
        serving_version_id=row.serving_version_id,
        created_at=row.created_at,
    )


def _version(row: AnyRow) -> VersionRow:
    return VersionRow(
        id=row.id,
        collection_id=row.collection_id,
        name=row.name,
        state=row.state,
        recipe=row.recipe,
        space=row.space,
        dim=row.dim,
        chunking=row.chunking,
        created_at=row.created_at,
    )


def _event(row: AnyRow) -> VersionEvent:
    return VersionEvent(event=row.event, detail=json.loads(row.detail), created_at=row.created_at)
