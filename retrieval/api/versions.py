"""The service Versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragstone import wire_versions as wire
from ragstone.errors import InvalidArgument
from ragstone.fields import decode_options
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
            "CreateVersion": edge.unary(pb.CreateVersionRequest, self.create, admit=False),
            "PlanVersion": edge.unary(pb.PlanVersionRequest, self.plan, admit=False),
            "WatchVersion": edge.watch(pb.WatchVersionRequest, self.watch),
            "CompareVersions": edge.unary(pb.CompareVersionsRequest, self.compare, admit=False),
            "PromoteVersion": edge.unary(pb.PromoteVersionRequest, self.promote, admit=False),
            "RollbackVersion": edge.unary(pb.RollbackVersionRequest, self.rollback, admit=False),
            "PauseVersion": edge.unary(pb.PauseVersionRequest, self.pause, admit=False),
            "ResumeVersion": edge.unary(pb.ResumeVersionRequest, self.resume, admit=False),
            "SetTraffic": edge.unary(pb.SetTrafficRequest, self.set_traffic, admit=False),
            "DeleteVersion": edge.unary(pb.DeleteVersionRequest, self.delete, admit=False),
            "ListMissingEmbeddings": edge.unary(
                pb.ListMissingEmbeddingsRequest, self.list_missing, admit=False
            ),
            "PutEmbeddings": edge.unary(pb.PutEmbeddingsRequest, self.put_embeddings, admit=False),
        }

    async def get(self, request: pb.GetVersionRequest, caller: Caller) -> pb.GetVersionResponse:
        """GetVersion."""
        version = await self._app.get_version(request.collection, request.name)
        return pb.GetVersionResponse(version=wire.encode_version(version))

    async def list_all(self, request: pb.ListVersionsRequest, caller: Caller) -> pb.ListVersionsResponse:
        """ListVersions."""
        versions = await self._app.versions(request.collection)
        return pb.ListVersionsResponse(versions=[wire.encode_version(version) for version in versions])

    async def create(self, request: pb.CreateVersionRequest, caller: Caller) -> pb.CreateVersionResponse:
        """CreateVersion."""
        recipe = wire.decode_recipe(request.recipe)
        version = await self._app.create_version(request.collection, recipe, paused=request.paused)
        return pb.CreateVersionResponse(version=wire.encode_version(version))

    async def plan(self, request: pb.PlanVersionRequest, caller: Caller) -> pb.PlanVersionResponse:
        """PlanVersion."""
        plan = await self._app.plan_version(request.collection, wire.decode_recipe(request.recipe))
        return pb.PlanVersionResponse(plan=wire.encode_plan(plan))

    async def watch(
        self, request: pb.WatchVersionRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchVersionResponse]:
        """WatchVersion."""
        versions = self._app.watch_version(request.collection, request.name)
        async with aclosing(versions):  # type: ignore[type-var]
            async for version in versions:
                yield pb.WatchVersionResponse(version=wire.encode_version(version))

    async def compare(self, request: pb.CompareVersionsRequest, caller: Caller) -> pb.CompareVersionsResponse:
        """CompareVersions."""
        comparison = await self._app.compare_versions(
            request.collection,
            request.a,
            request.b,
            queries=[wire.decode_golden_query(query) for query in request.queries],
            source=wire.decode_source(request.source),
        )
        return pb.CompareVersionsResponse(comparison=wire.encode_comparison(comparison))

    async def promote(self, request: pb.PromoteVersionRequest, caller: Caller) -> pb.PromoteVersionResponse:
        """PromoteVersion."""
        version = await self._app.promote_version(
            request.collection, request.name, force=request.force, limits=decode_options(request.gates)
        )
        return pb.PromoteVersionResponse(version=wire.encode_version(version))

    async def rollback(
        self, request: pb.RollbackVersionRequest, caller: Caller
    ) -> pb.RollbackVersionResponse:
        """RollbackVersion."""
        version = await self._app.rollback(request.collection)
        return pb.RollbackVersionResponse(version=wire.encode_version(version))

    async def pause(self, request: pb.PauseVersionRequest, caller: Caller) -> pb.PauseVersionResponse:
        """PauseVersion."""
        version = await self._app.pause_version(request.collection, request.name)
        return pb.PauseVersionResponse(version=wire.encode_version(version))

    async def resume(self, request: pb.ResumeVersionRequest, caller: Caller) -> pb.ResumeVersionResponse:
        """ResumeVersion."""
        version = await self._app.resume_version(request.collection, request.name)
        return pb.ResumeVersionResponse(version=wire.encode_version(version))

    async def set_traffic(self, request: pb.SetTrafficRequest, caller: Caller) -> pb.SetTrafficResponse:
        """SetTraffic."""
        version = await self._app.set_traffic(
            request.collection,
            request.version,
            shadow=request.shadow if request.HasField("shadow") else None,
            canary=request.canary if request.HasField("canary") else None,
        )
        return pb.SetTrafficResponse(version=wire.encode_version(version))

    async def delete(self, request: pb.DeleteVersionRequest, caller: Caller) -> pb.DeleteVersionResponse:
        """DeleteVersion."""
        freed = await self._app.delete_version(request.collection, request.name)
        return pb.DeleteVersionResponse(bytes_freed=freed)

    async def list_missing(
        self, request: pb.ListMissingEmbeddingsRequest, caller: Caller
    ) -> pb.ListMissingEmbeddingsResponse:
        """ListMissingEmbeddings."""
        part = await self._app.list_missing_embeddings(
            request.collection,
            request.version,
            worker=request.worker,
            max_texts=request.max_texts,
            lease_s=request.lease_seconds,
        )
        return pb.ListMissingEmbeddingsResponse(range=wire.encode_missing_texts(part))

    async def put_embeddings(
        self, request: pb.PutEmbeddingsRequest, caller: Caller
    ) -> pb.PutEmbeddingsResponse:
        """PutEmbeddings."""
        missing = await self._app.put_embeddings(
            request.collection,
            request.version,
            space=request.space,
            lease=request.lease,
            hashes=list(request.text_hashes),
            vectors=_rows(request.vectors, len(request.text_hashes)),
            refused={text.text_hash: text.reason for text in request.refused},
        )
        return pb.PutEmbeddingsResponse(missing=missing)


def _rows(values: bytes, count: int) -> NDArray[np.float32]:
    """``count`` rows of equal length, read-only."""
    if len(values) % (4 * max(1, count)) or (values and not count):
        raise InvalidArgument.at("vectors", f"{len(values)} bytes are no {count} rows of float32")
    return np.frombuffer(values, dtype="<f4").reshape(count, -1 if count else 0)
