"""The peers of a search benchmark, as their clients see them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import psycopg

    from ragstone import AsyncClient

Queries = NDArray[np.float32]
ECHO_METHOD = "/benchmarks.Echo/Echo"


@dataclass
class Ragstone:
    """Searches through the client library: by vector, or by text where ``texts`` are given."""

    address: str
    collection: str
    mode: str
    vectors: Queries | None = None
    texts: Sequence[str] = ()
    k: int = 10
    _client: AsyncClient | None = field(default=None, init=False)

    async def open(self, concurrency: int) -> None:
        """One channel for all calls."""
        from ragstone import AsyncClient

        self._client = AsyncClient(self.address)
        await self._client.__aenter__()

    async def call(self, number: int) -> Sequence[int]:
        """Rows found, by document id."""
        assert self._client is not None
        query: dict[str, Any] = (
            {"vector": self.vectors[number]} if self.vectors is not None else {"text": self.texts[number]}
        )
        result = await self._client.search(self.collection, k=self.k, mode=self.mode, timeout=60.0, **query)
        return [int(hit.document_id) for hit in result.hits]

    async def close(self) -> None:
        """Close the channel."""
        assert self._client is not None
        await self._client.__aexit__(None, None, None)


@dataclass
class Pgvector:
    """Searches a ``passages`` table through psycopg: prepared statements, binary vectors."""

    uri: str
    vectors: Queries
    ef_search: int
    k: int = 10
    _free: asyncio.Queue[psycopg.AsyncConnection[Any]] | None = field(default=None, init=False)

    async def open(self, concurrency: int) -> None:
        """One connection for each call at a time, as PostgreSQL's protocol needs."""
        import psycopg
        from pgvector.psycopg import register_vector_async

        self._free = asyncio.Queue()
        for _ in range(concurrency):
            connection = await psycopg.AsyncConnection.connect(self.uri, autocommit=True)
            await register_vector_async(connection)
            await connection.execute(f"SET hnsw.ef_search = {self.ef_search}")
            self._free.put_nowait(connection)

    async def call(self, number: int) -> Sequence[int]:
        """Rows found, with their texts, as a user of passages needs them."""
        assert self._free is not None
        connection = await self._free.get()
        try:
            cursor = await connection.execute(
                "SELECT id, text, embedding <=> %b FROM passages ORDER BY embedding <=> %b LIMIT %s",
                (self.vectors[number], self.vectors[number], self.k),
                prepare=True,
                binary=True,
            )
            return [row[0] for row in await cursor.fetchall()]
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Close all connections."""
        assert self._free is not None
        while not self._free.empty():
            await self._free.get_nowait().close()


@dataclass
class Echo:
    """A bare grpc.aio server that looks at nothing: the floor under every gRPC service in Python."""

    address: str
    request_bytes: int
    _channel: grpc.aio.Channel | None = field(default=None, init=False)

    async def open(self, concurrency: int) -> None:
        """One channel for all calls."""
        self._channel = grpc.aio.insecure_channel(self.address)
        self._echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(ECHO_METHOD)
        self._request = bytes(self.request_bytes)

    async def call(self, number: int) -> Sequence[int]:
        """Nothing is found: there is nothing behind it."""
        await self._echo(self._request)
        return []

    async def close(self) -> None:
        """Close the channel."""
        assert self._channel is not None
        await self._channel.close()
