"""Qdrant's wire on a real socket, over qdrant-client's local mode: what a machine without a Qdrant can have.

It tells nothing about Qdrant's own engine, but that what we send is what we mean, and what comes when it goes
away and comes back.
"""

from __future__ import annotations

from typing import Any, cast

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.collections_service_pb2_grpc import (
    CollectionsServicer,
    add_CollectionsServicer_to_server,
)
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server


class QdrantServer:
    """Serves what it holds in memory while it is started, on the same port each time."""

    def __init__(self) -> None:
        self.store = AsyncQdrantClient(location=":memory:")
        self.port = 0
        self._server: Any = None

    async def start(self) -> None:
        """Answer from now on."""
        # Without it another server in this process could have the port meanwhile.
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_CollectionsServicer_to_server(_Collections(self.store), self._server)  # type: ignore[no-untyped-call]
        add_PointsServicer_to_server(_Points(self.store), self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Answer no more; what it holds stays."""
        await self._server.stop(None)


class _Collections(CollectionsServicer):
    def __init__(self, store: AsyncQdrantClient) -> None:
        self._store = store

    async def CollectionExists(self, request: Any, context: Any) -> Any:  # noqa: N802
        exists = await self._store.collection_exists(request.collection_name)
        return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        vectors = GrpcToRest.convert_vectors_config(request.vectors_config)
        await self._store.create_collection(request.collection_name, vectors_config=vectors)
        return wire.CollectionOperationResponse(result=True)

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._store.delete_collection(request.collection_name)
        return wire.CollectionOperationResponse(result=True)

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        info = await self._store.get_collection(request.collection_name)
        return wire.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))


class _Points(PointsServicer):
    def __init__(self, store: AsyncQdrantClient) -> None:
        self._store = store

    async def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert request.wait
        await self._found(request, context)
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        await self._store.upsert(request.collection_name, points)
        return _DONE

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert request.wait
        await self._found(request, context)
        await self._store.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
        return _DONE

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        ids = [GrpcToRest.convert_point_id(point_id) for point_id in request.ids]
        found = await self._store.retrieve(request.collection_name, ids)
        return wire.GetResponse(result=[RestToGrpc.convert_retrieved_point(point) for point in found])

    async def Scroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        offset = GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
        found, following = await self._store.scroll(
            request.collection_name, limit=request.limit, offset=offset, with_payload=False
        )
        ids = [RestToGrpc.convert_extended_point_id(point.id) for point in found]
        more = None if following is None else RestToGrpc.convert_extended_point_id(cast(int, following))
        return wire.ScrollResponse(
            result=[wire.RetrievedPoint(id=point_id) for point_id in ids], next_page_offset=more
        )

    async def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._found(request, context)
        answers = []
        for asked in request.query_points:
            query = GrpcToRest.convert_query_points(asked)
            # The local mode is exact, and warns where it is told how to search.
            plain = models.QueryRequest(
                query=query.query, limit=query.limit, filter=query.filter, with_payload=False
            )
            answers += await self._store.query_batch_points(request.collection_name, [plain])
        results = [
            wire.BatchResult(result=[RestToGrpc.convert_scored_point(point) for point in answer.points])
            for answer in answers
        ]
        return wire.QueryBatchResponse(result=results)

    async def _found(self, request: Any, context: Any) -> None:
        if not await self._store.collection_exists(request.collection_name):
            await context.abort(grpc.StatusCode.NOT_FOUND, "Collection doesn't exist!")


_DONE = wire.PointsOperationResponse(
    result=wire.UpdateResult(operation_id=0, status=wire.UpdateStatus.Completed)
)
