"""The service Collections."""

from __future__ import annotations

from typing import Any

from ragstone import wire_versions as wire
from ragstone.v1 import collections_pb2 as pb
from retrieval.api.application import Application
from retrieval.api.interceptors import Caller, Edge


class CollectionsServicer:
    """Decode, call, encode."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def handlers(self, edge: Edge) -> dict[str, Any]:
        """Method name -> gRPC handler."""
        return {
            "CreateCollection": edge.unary(pb.CreateCollectionRequest, self.create, admit=False),
            "GetCollection": edge.unary(pb.GetCollectionRequest, self.get, admit=False),
            "ListCollections": edge.unary(pb.ListCollectionsRequest, self.list_all, admit=False),
            "DeleteCollection": edge.unary(pb.DeleteCollectionRequest, self.delete, admit=False),
            "CompactCollection": edge.unary(pb.CompactCollectionRequest, self.compact, admit=False),
            "SetGoldenQueries": edge.unary(pb.SetGoldenQueriesRequest, self.set_golden, admit=False),
            "GetGoldenQueries": edge.unary(pb.GetGoldenQueriesRequest, self.get_golden, admit=False),
        }

    async def create(
        self, request: pb.CreateCollectionRequest, caller: Caller
    ) -> pb.CreateCollectionResponse:
        """CreateCollection."""
        collection = await self._app.create_collection(request.name, wire.decode_recipe(request.recipe))
        return pb.CreateCollectionResponse(collection=wire.encode_collection(collection))

    async def get(self, request: pb.GetCollectionRequest, caller: Caller) -> pb.GetCollectionResponse:
        """GetCollection."""
        collection = await self._app.get_collection(request.name)
        return pb.GetCollectionResponse(collection=wire.encode_collection(collection))

    async def list_all(
        self, request: pb.ListCollectionsRequest, caller: Caller
    ) -> pb.ListCollectionsResponse:
        """ListCollections."""
        collections = await self._app.list_collections()
        return pb.ListCollectionsResponse(
            collections=[wire.encode_collection(found) for found in collections]
        )

    async def delete(
        self, request: pb.DeleteCollectionRequest, caller: Caller
    ) -> pb.DeleteCollectionResponse:
        """DeleteCollection."""
        await self._app.delete_collection(request.name)
        return pb.DeleteCollectionResponse()

    async def compact(
        self, request: pb.CompactCollectionRequest, caller: Caller
    ) -> pb.CompactCollectionResponse:
        """CompactCollection."""
        collection = await self._app.compact(request.name)
        return pb.CompactCollectionResponse(collection=wire.encode_collection(collection))

    async def set_golden(
        self, request: pb.SetGoldenQueriesRequest, caller: Caller
    ) -> pb.SetGoldenQueriesResponse:
        """SetGoldenQueries."""
        await self._app.set_golden_queries(
            request.name, [wire.decode_golden_query(query) for query in request.queries]
        )
        return pb.SetGoldenQueriesResponse()

    async def get_golden(
        self, request: pb.GetGoldenQueriesRequest, caller: Caller
    ) -> pb.GetGoldenQueriesResponse:
        """GetGoldenQueries."""
        queries = await self._app.get_golden_queries(request.name)
        return pb.GetGoldenQueriesResponse(queries=[wire.encode_golden_query(query) for query in queries])
