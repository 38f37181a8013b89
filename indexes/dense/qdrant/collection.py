"""One collection in Qdrant, by qdrant-client: what is asked, how long that may take, what errors mean."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from grpc import StatusCode
from grpc.aio import AioRpcError
from pyroaring import BitMap64
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as wire
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.conversions.conversion import RestToGrpc

from indexes.base import Keys, Metric, Vectors
from indexes.circuit import CircuitBreaker
from indexes.dense.qdrant.has_id import filter_of
from indexes.dense.qdrant.options import QdrantOptions
from indexes.dense.qdrant.points import DISTANCES, PAGE, POSITION, SEQ, Among, Hits, Walk, seq_of
from indexes.directory import LocalDirectory
from ragstone.errors import (
    BackendUnavailable,
    CorruptIndex,
    FailedPrecondition,
    InvalidArgument,
    RagstoneError,
)

_RECONNECT_MS: Final = 1_000
"""gRPC itself would wait up to two minutes before it tries a server again."""
_AWAY: Final = (
    StatusCode.UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.CANCELLED,
    StatusCode.INTERNAL,
    StatusCode.UNKNOWN,
    StatusCode.ABORTED,
)
_REFUSED: Final = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
_MESSAGE_CHARS: Final = 300


class Collection:
    """Points under keys, and one for the position. A write is there, and durable, when it returns.

    Every method raises BackendUnavailable when Qdrant does not answer in ``timeout_s``, or has not lately;
    CorruptIndex when the collection is gone; FailedPrecondition when Qdrant refuses the caller.
    """

    def __init__(self, name: str, options: QdrantOptions) -> None:
        """Raises FailedPrecondition when another has a local mode's folder open, or the key is not set."""
        self.name = name
        self._options = options
        self._client = _client(name, options)
        self._circuit = CircuitBreaker(failures=options.failures, open_s=options.open_s)

    async def make(self, dim: int, metric: Metric) -> None:
        """Make it, when it is not there. Raises FailedPrecondition when it is, for other vectors."""
        async with self._asking():
            found = await self._client.collection_exists(self.name)
        if found:
            await self._expect(dim, metric)
            return
        async with self._asking():
            await self._client.create_collection(
                self.name,
                vectors_config=models.VectorParams(
                    size=dim, distance=self._distance(metric), on_disk=self._options.on_disk
                ),
                shard_number=self._options.shard_number,
                replication_factor=self._options.replication_factor,
                write_consistency_factor=self._options.write_consistency_factor,
                hnsw_config=models.HnswConfigDiff(m=self._options.m, ef_construct=self._options.ef_construct),
                quantization_config=_QUANTIZATION[self._options.quantization],
            )

    async def position(self) -> int:
        """The position that was set last; 0 for none."""
        async with self._asking():
            points = await self._client.retrieve(self.name, [POSITION], with_payload=True)
        return seq_of(points[0].payload) if points else 0

    async def keys(self) -> BitMap64:
        """All keys, in many requests."""
        keys, offset = BitMap64(), None
        while True:
            async with self._asking():
                points, offset = await self._client.scroll(
                    self.name, limit=PAGE, offset=offset, with_payload=False, with_vectors=False
                )
            keys.update(cast(int, point.id) for point in points)
            if offset is None:
                keys.discard(POSITION)
                return keys

    async def upsert(self, keys: Keys, vectors: Vectors) -> None:
        """Add vectors; those of keys that are there are replaced."""
        async with self._asking():
            points = models.Batch.model_construct(ids=keys.tolist(), vectors=vectors.tolist(), payloads=None)
            await self._client.upsert(self.name, points, wait=True)

    async def delete(self, keys: Keys) -> None:
        """Take keys away; those that are not there are no error."""
        async with self._asking():
            selected = models.PointIdsList.model_construct(points=keys.tolist())
            await self._client.delete(self.name, selected, wait=True)

    async def set_position(self, seq: int) -> None:
        """Write the position down."""
        async with self._asking():
            point = models.PointStruct(id=POSITION, vector={}, payload={SEQ: seq})
            await self._client.upsert(self.name, [point], wait=True)

    async def query(self, queries: Vectors, limit: int, among: Among, walk: Walk) -> Sequence[Hits]:
        """The best ``limit`` points for each row of ``queries`` ``(n, dim)``."""
        asked = [
            models.QueryRequest(
                query=query,
                limit=limit,
                filter=_filter(among) if self._is_local else None,
                params=None if self._is_local else _params(walk),
                with_payload=False,
                with_vector=False,
            )
            for query in queries.tolist()
        ]
        async with self._asking():
            if not self._is_local:
                return await self._query_wire(asked, among)
            answers = await self._client.query_batch_points(self.name, asked)
        return [
            ([cast(int, point.id) for point in answer.points], [point.score for point in answer.points])
            for answer in answers
        ]

    async def facts(self) -> dict[str, Any]:
        """What Qdrant tells about it."""
        async with self._asking():
            info = await self._client.get_collection(self.name)
        return {
            "status": str(info.status.value),
            "points": info.points_count,
            "indexed": info.indexed_vectors_count,
            "segments": info.segments_count,
        }

    async def drop(self) -> None:
        """Remove it; one that is not there is no error."""
        async with self._asking():
            if await self._client.collection_exists(self.name):
                await self._client.delete_collection(self.name)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @property
    def _is_local(self) -> bool:
        return self._options.path is not None

    @property
    def _whole_s(self) -> int:
        return math.ceil(self._options.timeout_s)

    def _distance(self, metric: Metric) -> models.Distance:
        if self._is_local and metric is Metric.COSINE:
            # The local mode normalises what it has stored anew for each search, and scores drift with it.
            # Vectors have length 1 already.
            return models.Distance.DOT
        return models.Distance(DISTANCES[metric])

    async def _expect(self, dim: int, metric: Metric) -> None:
        async with self._asking():
            info = await self._client.get_collection(self.name)
        vectors = info.config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise FailedPrecondition(f"the collection {self.name} was not made by Ragstone")
        wanted = self._distance(metric)
        if (vectors.size, vectors.distance) != (dim, wanted):
            raise FailedPrecondition(
                f"the collection {self.name} was made for dimension {vectors.size}, "
                f"{vectors.distance.value}, not for dimension {dim}, {wanted.value}"
            )

    async def _query_wire(self, asked: Sequence[models.QueryRequest], among: Among) -> Sequence[Hits]:
        """By Qdrant's own messages: the client's models of ids and hits take many times as long."""
        chosen = filter_of(among)
        requests = [RestToGrpc.convert_query_request(request, self.name) for request in asked]
        for request in requests if chosen is not None else ():
            request.filter.CopyFrom(chosen)
        batch = wire.QueryBatchPoints(collection_name=self.name, query_points=requests, timeout=self._whole_s)
        answer = await self._client.grpc_points.QueryBatch(batch, timeout=self._options.timeout_s)
        return [
            ([point.id.num for point in one.result], [point.score for point in one.result])
            for one in answer.result
        ]

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Around one request."""
        place, timeout_s = self._options.place, self._options.timeout_s
        if self._is_local:
            # It works on the event loop and never waits: without this nobody else would have a turn.
            await asyncio.sleep(0)
        with self._circuit.call():
            try:
                async with asyncio.timeout(timeout_s):
                    yield
            except TimeoutError as exc:
                raise BackendUnavailable(f"{place} has not answered within {timeout_s:g} s") from exc
            except ResourceExhaustedResponse as exc:
                raise BackendUnavailable(f"{place} is busy", retry_after_s=exc.retry_after_s) from exc
            except AioRpcError as exc:
                raise self._translated(exc.code(), exc.details() or "") from exc
            except ValueError as exc:
                if self._is_local and "not found" in str(exc):
                    raise self._translated(StatusCode.NOT_FOUND, str(exc)) from exc
                raise

    def _translated(self, code: StatusCode, details: str) -> RagstoneError:
        place, said = self._options.place, details[:_MESSAGE_CHARS]
        if code in _AWAY:
            return BackendUnavailable(f"{place} does not answer: {code.name}: {said}")
        if code is StatusCode.NOT_FOUND:
            return CorruptIndex(f"{place} has lost the collection {self.name}: {said}")
        if code in _REFUSED:
            return FailedPrecondition.at("recipe.index.api_key_env", f"{place} refuses it: {said}")
        if code is StatusCode.INVALID_ARGUMENT:
            return InvalidArgument(f"{place} refuses this: {said}")
        return FailedPrecondition(f"{place} refuses this: {code.name}: {said}")


def _client(name: str, options: QdrantOptions) -> AsyncQdrantClient:
    if options.path is not None:
        # A client locks its folder: each index has one of its own.
        folder = LocalDirectory(options.path).subdirectory(name).path("qdrant")
        try:
            return AsyncQdrantClient(path=str(folder))
        except RuntimeError as exc:
            raise FailedPrecondition(f"{folder} is open in another process or place") from exc
    return AsyncQdrantClient(
        url=options.url,
        grpc_port=options.grpc_port,
        prefer_grpc=True,
        api_key=options.api_key(),
        timeout=math.ceil(options.timeout_s),
        # It would ask over HTTP, from a thread of its own.
        check_compatibility=False,
        grpc_options={
            "grpc.initial_reconnect_backoff_ms": _RECONNECT_MS // 4,
            # Also how long one attempt may take.
            "grpc.min_reconnect_backoff_ms": 2 * _RECONNECT_MS,
            "grpc.max_reconnect_backoff_ms": _RECONNECT_MS,
        },
    )


def _filter(among: Among) -> models.Filter | None:
    if among.ids is None:
        return None
    condition = models.HasIdCondition.model_construct(has_id=list(among.ids))
    return models.Filter(must_not=[condition]) if among.all_but else models.Filter(must=[condition])


def _params(walk: Walk) -> models.SearchParams:
    return models.SearchParams(
        exact=walk.exact,
        hnsw_ef=walk.ef,
        quantization=models.QuantizationSearchParams(
            ignore=not walk.quantised, rescore=walk.rescore, oversampling=walk.oversampling
        ),
    )


_QUANTIZATION: Final[dict[str, models.QuantizationConfig | None]] = {
    "none": None,
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    "product": models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
    ),
}
