"""Golden queries: what a collection has to answer well, whichever version serves it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from ragstone.errors import InvalidArgument
from ragstone.types import GoldenQuery
from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.queries import require_collection

_golden = schema.golden_queries


class GoldenQueries:
    """The golden queries of all collections. They go with their collection: see ``Catalog``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def replace(self, collection_id: int, queries: Sequence[GoldenQuery]) -> None:
        """Keep exactly ``queries``; one without an id is called by its place, from 1.

        Raises InvalidArgument naming a query whose id another one has, NotFound.
        """
        rows = [
            {
                "collection_id": collection_id,
                "query_id": query.id or str(place),
                "text": query.text,
                "relevant": json.dumps(dict(query.relevant), sort_keys=True),
            }
            for place, query in enumerate(queries, start=1)
        ]
        seen: set[object] = set()
        for number, row in enumerate(rows):
            if row["query_id"] in seen:
                raise InvalidArgument.at(f"queries[{number}].id", f"is {row['query_id']!r}, as another is")
            seen.add(row["query_id"])

        def work(connection: Connection) -> None:
            require_collection(connection, collection_id)
            connection.execute(delete(_golden).where(_golden.c.collection_id == collection_id))
            if rows:
                connection.execute(insert(_golden), rows)

        await self._db.write(work)

    async def of(self, collection_id: int) -> list[GoldenQuery]:
        """The golden queries of a collection, by id."""
        own = select(_golden).where(_golden.c.collection_id == collection_id).order_by(_golden.c.query_id)
        return await self._db.read(
            lambda c: [
                GoldenQuery(id=row.query_id, text=row.text, relevant=json.loads(row.relevant))
                for row in c.execute(own)
            ]
        )
