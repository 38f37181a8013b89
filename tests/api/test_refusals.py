"""Bad requests: each with its typed error and the field named, and nothing reaches the application."""

from __future__ import annotations

from typing import Any

import grpc.aio
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from ragstone import AsyncClient, Document, Query, errors, wire
from ragstone.errors import InvalidArgument
from ragstone.status import TRAILER, from_status
from ragstone.v1 import documents_pb2 as documents
from ragstone.v1 import retrieval_pb2 as retrieval

GOOD = Document(id="1", text="text")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"k": 0}, "query.k"),
        ({"k": 100_000}, "query.k"),
        ({"depth": 0}, "query.depth"),
        ({"depth": 10_001}, "query.depth"),
        ({"mode": "fuzzy"}, "query.mode"),
        ({"text": "x" * 32_769}, "query.text"),
        ({"text": "\ud800"}, "query.text"),
        ({"filter": "x" * 8_193}, "query.filter"),
        ({"vector": [1.0, float("nan")]}, "query.vector"),
        ({"vector": np.array([np.inf], "f")}, "query.vector"),
        ({"vector": []}, "query.vector.values"),
        ({"min_seq": -1}, "query.min_seq"),
        ({"request_key": "x" * 257}, "query.request_key"),
        ({"version": "v" * 65}, "query.version"),
        ({"space": "x" * 513}, "query.space"),
        ({"collection": "Docs"}, "collection"),
        ({"collection": "x" * 64}, "collection"),
        ({"collection": ""}, "collection"),
    ],
)
async def test_a_search(either: Any, app: Any, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await either.search(**{"collection": "docs", "text": "question", **arguments})
    assert [violation.field for violation in caught.value.violations] == [field]
    assert app.calls == []


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ([Document(id="1", text="")], "documents[0].text"),
        ([Document(id="1", text=" \n")], "documents[0].text"),
        ([GOOD, GOOD], "documents[1].id"),
        ([Document(id="", text="text")], "documents[0].id"),
        ([Document(id="x" * 513, text="text")], "documents[0].id"),
        ([Document(id="1", text="x" * 50_000_000)], "documents[0].text"),
        ([GOOD, Document(id="2", text="a\udfff")], "documents[1].text"),
        ([GOOD, Document(id="2", text="a", vector=[float("nan")])], "documents[1].vector"),
        ([Document(id="1", text="a", metadata={"": 1})], 'documents[0].metadata[""]'),
        (
            [Document(id="1", text="a", metadata={"x": float("inf")})],
            'documents[0].metadata["x"].double_value',
        ),
        ([], "documents"),
        ([Document(id=str(i), text="a") for i in range(1001)], "documents"),
    ],
)
async def test_an_upsert(either: Any, app: Any, given: list[Document], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await either.upsert("docs", given)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert app.calls == []


async def test_all_violations_come_in_one_answer(either: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await either.search("Docs", k=0, depth=0)
    assert {v.field for v in caught.value.violations} == {"collection", "query.k", "query.depth"}


@pytest.mark.parametrize("arguments", [{}, {"ids": []}, {"ids": ["1"], "filter": "year < 2020"}])
async def test_a_delete_needs_ids_or_a_filter(either: Any, app: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await either.delete("docs", **arguments)
    assert app.calls == []


async def test_an_answer_needs_a_question(either: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        [event async for event in either.answer("docs", "")]
    assert [violation.field for violation in caught.value.violations] == ["query"]


async def test_too_large_a_batch_of_queries(either: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await either.batch_search("docs", [Query(text="a")] * 129)
    assert [violation.field for violation in caught.value.violations] == ["queries"]


async def test_a_query_of_a_batch_is_named_by_its_place(either: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await either.batch_search("docs", [Query(text="a"), Query(text="b", k=0)])
    assert [violation.field for violation in caught.value.violations] == ["queries[1].k"]


# -- what only a client of another kind can send ------------------------------------------------

SEARCH = "/ragstone.v1.Retrieval/Search"
UPSERT = "/ragstone.v1.Documents/UpsertDocuments"


async def refusal(address: str, path: str, request: bytes) -> errors.RagstoneError:
    """The error that a server answers raw bytes with; it must have details."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
    trailers: dict[str, Any] = dict(caught.value.trailing_metadata())
    status = Status.FromString(trailers[TRAILER])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "ragstone"
    assert caught.value.code() is grpc.StatusCode[errors.ERRORS[caught.value.code().name, info.reason].status]
    return from_status(status)


def corrupted(message: Any, good: bytes) -> bytes:
    """The message's bytes with the marked text made invalid UTF-8 of the same length."""
    data: bytes = message.SerializeToString()
    return data.replace(good, b"\xff" * len(good))


@pytest.mark.parametrize(
    ("path", "message", "field"),
    [
        (SEARCH, retrieval.SearchRequest(collection="docs", query={"text": "MARK"}), "query.text"),
        (SEARCH, retrieval.SearchRequest(collection="MARK", query={"text": "x"}), "collection"),
        (
            UPSERT,
            documents.UpsertDocumentsRequest(
                collection="docs", documents=[{"id": "1", "text": "fine"}, {"id": "2", "text": "MARK"}]
            ),
            "documents[1].text",
        ),
    ],
)
async def test_text_that_is_not_utf8_is_named(address: str, path: str, message: Any, field: str) -> None:
    error = await refusal(address, path, corrupted(message, b"MARK"))
    assert type(error) is InvalidArgument
    assert [violation.field for violation in error.violations] == [field]


async def test_bytes_that_are_no_message(address: str) -> None:
    assert type(await refusal(address, SEARCH, b"\xff\xff\xff")) is InvalidArgument


async def test_a_mode_that_no_version_knows(address: str) -> None:
    request = retrieval.SearchRequest(collection="docs", query={"text": "x", "mode": 99})
    error = await refusal(address, SEARCH, request.SerializeToString())
    assert [violation.field for violation in error.violations] == ["query.mode"]


async def test_a_vector_with_a_part_of_a_component(address: str) -> None:
    request = retrieval.SearchRequest(collection="docs", query={"vector": {"values": b"12345"}})
    error = await refusal(address, SEARCH, request.SerializeToString())
    assert [violation.field for violation in error.violations] == ["query.vector.values"]


async def test_the_server_holds_the_limit_of_a_text_too(address: str) -> None:
    text = "x" * (wire.MAX_TEXT_BYTES + 1)
    request = documents.UpsertDocumentsRequest(collection="docs", documents=[{"id": "1", "text": text}])
    error = await refusal(address, UPSERT, request.SerializeToString())
    assert [violation.field for violation in error.violations] == ["documents[0].text"]


async def test_a_message_above_the_server_s_own_limit(start: Any) -> None:
    server = await start(max_message_bytes=1000)
    async with AsyncClient(server.address) as client:
        with pytest.raises(InvalidArgument, match="too large"):
            await client.upsert("docs", [Document(id="1", text="x" * 2000)])
