"""The service Retrieval."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np

from ragstone import wire, wire_answers
from ragstone.errors import InvalidArgument
from ragstone.types import Query, Question
from ragstone.v1 import retrieval_pb2 as pb
from retrieval.api.application import Application
from retrieval.api.interceptors import Caller, Edge
from retrieval.api.requests import float_row


class RetrievalServicer:
    """Decode, call, encode."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def handlers(self, edge: Edge) -> dict[str, Any]:
        """Method name -> gRPC handler."""
        return {
            "Search": edge.unary(pb.SearchRequest, self.search),
            "BatchSearch": edge.unary(pb.BatchSearchRequest, self.batch_search),
            "Answer": edge.stream(pb.AnswerRequest, self.answer),
            "Embed": edge.unary(pb.EmbedRequest, self.embed),
            "Rerank": edge.unary(pb.RerankRequest, self.rerank),
            "ListUsage": edge.unary(pb.ListUsageRequest, self.list_usage),
            "GetInfo": edge.unary(pb.GetInfoRequest, self.get_info, admit=False),
        }

    async def search(self, request: pb.SearchRequest, caller: Caller) -> pb.SearchResponse:
        """Search."""
        result = await self._app.search(
            request.collection,
            _query(request.query, "query"),
            tenant=caller.tenant,
            deadline_s=caller.deadline_s,
        )
        response = pb.SearchResponse()
        wire.put_result(response.result, result)
        return response

    async def batch_search(self, request: pb.BatchSearchRequest, caller: Caller) -> pb.BatchSearchResponse:
        """BatchSearch."""
        results = await self._app.batch_search(
            request.collection,
            [_query(query, f"queries[{i}]") for i, query in enumerate(request.queries)],
            tenant=caller.tenant,
            deadline_s=caller.deadline_s,
        )
        response = pb.BatchSearchResponse()
        for result in results:
            wire.put_result(response.results.add(), result)
        return response

    async def answer(self, request: pb.AnswerRequest, caller: Caller) -> AsyncIterator[pb.AnswerResponse]:
        """Answer."""
        question = Question(
            query=_query(request.query, "query"),
            history=wire_answers.decode_history(request.history),
            generation=wire_answers.decode_generation(request.generation),
        )
        events = self._app.answer(
            request.collection,
            question,
            tenant=caller.tenant,
            deadline_s=caller.deadline_s,
        )
        async with aclosing(events):  # type: ignore[type-var]
            async for event in events:
                yield wire_answers.encode_event(event)

    async def embed(self, request: pb.EmbedRequest, caller: Caller) -> pb.EmbedResponse:
        """Embed."""
        kind = wire.decode_embed_kind(request.kind)
        embedded = await self._app.embed(
            request.collection, list(request.texts), kind=kind, tenant=caller.tenant
        )
        rows = np.ascontiguousarray(embedded.vectors, dtype="<f4")
        return pb.EmbedResponse(
            values=rows.tobytes(),
            dim=rows.shape[1],
            space=embedded.space,
            truncations={i: wire.encode_truncation(cut) for i, cut in embedded.truncations.items()},
        )

    async def rerank(self, request: pb.RerankRequest, caller: Caller) -> pb.RerankResponse:
        """Rerank."""
        result = await self._app.rerank(
            request.collection, request.query, list(request.texts), deadline_s=caller.deadline_s
        )
        return wire.encode_rerank_scores(result)

    async def list_usage(self, request: pb.ListUsageRequest, caller: Caller) -> pb.ListUsageResponse:
        """ListUsage."""
        records = await self._app.usage(
            tenant=caller.tenant,
            first_day=wire_answers.decode_day(request.first_day, "first_day"),
            last_day=wire_answers.decode_day(request.last_day, "last_day"),
        )
        return pb.ListUsageResponse(records=map(wire_answers.encode_usage_record, records))

    async def get_info(self, request: pb.GetInfoRequest, caller: Caller) -> pb.GetInfoResponse:
        """GetInfo."""
        return wire.encode_info(await self._app.info())


def _query(message: pb.Query, at: str) -> Query:
    try:
        return wire.decode_query(message, vector=float_row)
    except InvalidArgument as exc:
        raise InvalidArgument.at(f"{at}.vector", exc.message) from exc
