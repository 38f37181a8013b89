"""The service Versions."""

from __future__ import annotations

from typing import Any

from ragstone import wire
from ragstone.v1 import versions_pb2 as pb
from retrieval.api.application import Application
from retrieval.api.interceptors import Caller, Edge


class VersionsServicer:
    """Decode, call, encode."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def handlers(self, edge: Edge) -> dict[str, Any]:
        """Method name -> gRPC handler."""
        return {
            "GetVersion": edge.unary(pb.GetVersionRequest, self.get, admit=False),
            "ListVersions": edge.unary(pb.ListVersionsRequest, self.list_all, admit=False),
        }

    async def get(self, request: pb.GetVersionRequest, caller: Caller) -> pb.GetVersionResponse:
        """GetVersion."""
        version = await self._app.get_version(request.collection, request.name)
        return pb.GetVersionResponse(version=wire.encode_version(version))

    async def list_all(self, request: pb.ListVersionsRequest, caller: Caller) -> pb.ListVersionsResponse:
        """ListVersions."""
        versions = await self._app.versions(request.collection)
        return pb.ListVersionsResponse(versions=[wire.encode_version(version) for version in versions])
