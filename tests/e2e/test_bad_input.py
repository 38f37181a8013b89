"""Wrong requests against a real server: each gets its own error, with the field named, and stores nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from ragstone import AsyncClient, Client, Document, Query, Recipe
from ragstone.errors import (
    DeadlineExceeded,
    InvalidArgument,
    InvalidFilter,
    InvalidPageToken,
    NotFound,
    RagstoneError,
    SpaceMismatch,
)

if TYPE_CHECKING:
    from tests.conftest import MakeServer, RealServer

pytestmark = pytest.mark.e2e

DIM = 8
ROW = np.ones(DIM, dtype=np.float32)
NOT_A_NUMBER = np.array([1.0, np.nan] + [0.0] * (DIM - 2), dtype=np.float32)
FIRST = Document(id="first", text="a harbour at night")


@dataclass(frozen=True)
class Collections:
    """The names of a collection that embeds, and of one whose clients bring their vectors."""

    texts: str
    vectors: str


@dataclass(frozen=True)
class Wrong:
    """A call that must be refused, the error's class and the field that it names."""

    call: Callable[[Client, Collections], Any]
    error: type[RagstoneError] = InvalidArgument
    field: str = ""


@pytest.fixture
def collections(client: Client, name: str) -> Iterator[Collections]:
    made = Collections(texts=f"{name}-t", vectors=f"{name}-v")
    client.create_collection(made.texts, recipe=Recipe(embedder={"kind": "hashing", "dim": DIM}))
    own = {"kind": "precomputed", "space": "ours", "dim": DIM}
    client.create_collection(made.vectors, recipe=Recipe(embedder=own, index={"kind": "flat"}))
    client.upsert(made.texts, [FIRST])
    client.upsert(made.vectors, [Document(id="first", text=FIRST.text, vector=ROW)])
    yield made
    client.delete_collection(made.texts)
    client.delete_collection(made.vectors)


def page_of_another_query(client: Client, at: Collections) -> None:
    more = [Document(id=f"more-{number}", text=f"a harbour, {number}") for number in range(3)]
    client.upsert(at.texts, more)
    token = client.search(at.texts, "harbour", k=1).next_page_token
    assert token
    client.delete(at.texts, ids=[document.id for document in more])
    client.search(at.texts, "lighthouse", k=1, page_token=token)


def upsert(*documents: Document) -> Callable[[Client, Collections], Any]:
    return lambda client, at: client.upsert(at.texts, documents)


def upsert_vector(vector: object) -> Callable[[Client, Collections], Any]:
    return lambda client, at: client.upsert(at.vectors, [Document(id="new", text="x", vector=vector)])


def search(text: str = "harbour", **options: Any) -> Callable[[Client, Collections], Any]:
    return lambda client, at: client.search(at.texts, text, **options)


def search_vector(vector: object, **options: Any) -> Callable[[Client, Collections], Any]:
    return lambda client, at: client.search(at.vectors, vector=vector, mode="dense", **options)


WRONG = {
    "an empty text": Wrong(upsert(Document(id="new", text=" \n")), field="documents[0].text"),
    "an empty id": Wrong(upsert(Document(id="", text="x")), field="documents[0].id"),
    "one bad document among good ones": Wrong(
        upsert(Document(id="good", text="x"), Document(id="bad", text="")), field="documents[1].text"
    ),
    "a document of 50 MB": Wrong(
        upsert(Document(id="new", text="fifty megabytes " * 3_276_800)), field="documents[0].text"
    ),
    "a text that is not Unicode": Wrong(upsert(Document(id="new", text="\ud800")), field="documents[0].text"),
    "a duplicate id": Wrong(
        upsert(Document(id="new", text="x"), Document(id="new", text="y")), field="documents[1].id"
    ),
    "a vector where the collection embeds": Wrong(
        upsert(Document(id="new", text="x", vector=ROW)), field="documents[0].vector"
    ),
    "no vector where clients bring it": Wrong(
        lambda client, at: client.upsert(at.vectors, [Document(id="new", text="x")]),
        field="documents[0].vector",
    ),
    "NaN in a document's vector": Wrong(upsert_vector(NOT_A_NUMBER), field="documents[0].vector"),
    "a document's vector of another dimension": Wrong(
        upsert_vector(np.ones(DIM + 1, dtype=np.float32)), field="documents[0].vector"
    ),
    "NaN in a query's vector": Wrong(search_vector(NOT_A_NUMBER), field="query.vector"),
    "a query's vector of another dimension": Wrong(
        search_vector(np.ones(DIM - 1, dtype=np.float32)), field="query.vector"
    ),
    "a vector of another space": Wrong(
        search_vector(ROW, space="theirs"), error=SpaceMismatch, field="query.vector"
    ),
    "k = 0": Wrong(search(k=0), field="query.k"),
    "k = 100,000": Wrong(search(k=100_000), field="query.k"),
    "a query without text": Wrong(search(""), field="query.text"),
    "a filter that does not parse": Wrong(
        search(filter='lang = "en" AND'), error=InvalidFilter, field="query.filter"
    ),
    "a filter that does not parse, in a delete": Wrong(
        lambda client, at: client.delete(at.texts, filter="year >"), error=InvalidFilter, field="filter"
    ),
    "a delete of nothing": Wrong(lambda client, at: client.delete(at.texts)),
    "a damaged page token": Wrong(
        search(page_token="bm8gdG9rZW4"), error=InvalidPageToken, field="query.page_token"
    ),
    "a page token of another query": Wrong(
        page_of_another_query, error=InvalidPageToken, field="query.page_token"
    ),
    "an unknown collection, written": Wrong(
        lambda client, at: client.upsert("nowhere", [FIRST]), error=NotFound
    ),
    "an unknown collection, searched": Wrong(
        lambda client, at: client.search("nowhere", "harbour"), error=NotFound
    ),
    "an unknown collection, deleted from": Wrong(
        lambda client, at: client.delete("nowhere", ids=["first"]), error=NotFound
    ),
    "an unknown part of a recipe": Wrong(
        lambda client, at: client.create_collection("new", recipe=Recipe(index={"kind": "hnsv"})),
        field="recipe.index.kind",
    ),
    "a deadline of 1 ms": Wrong(
        lambda client, at: client.batch_search(at.texts, [Query(text="harbour")] * 64, timeout=0.001),
        error=DeadlineExceeded,
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_request_names_its_field_and_stores_nothing(
    client: Client, collections: Collections, wrong: Wrong
) -> None:
    with pytest.raises(RagstoneError) as refused:
        wrong.call(client, collections)
    assert type(refused.value) is wrong.error
    if wrong.field:
        assert [violation.field for violation in refused.value.violations] == [wrong.field]
    for stored in (collections.texts, collections.vectors):
        assert [document.id for document in client.list_documents(stored)] == ["first"]


def test_a_filter_error_says_the_column(client: Client, collections: Collections) -> None:
    with pytest.raises(InvalidFilter) as refused:
        client.search(collections.texts, "harbour", filter="year >= >= 2020")
    assert refused.value.column == 9


def test_bytes_that_are_not_utf8_are_refused_with_the_field(
    server: RealServer, client: Client, collections: Collections
) -> None:
    """A client in another language could send them; Ragstone's own cannot."""
    text = field(2, b"\xff\xfe")
    request = field(1, collections.texts.encode()) + field(2, field(1, b"new") + text)
    with grpc.insecure_channel(server.address) as channel:
        upsert_documents: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        upsert_documents = channel.unary_unary("/ragstone.v1.Documents/UpsertDocuments")
        with pytest.raises(grpc.RpcError) as refused:
            upsert_documents(request, timeout=10.0)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "documents[0].text" in str(refused.value.details())
    assert [document.id for document in client.list_documents(collections.texts)] == ["first"]


def field(number: int, data: bytes) -> bytes:
    """One length-delimited protobuf field of less than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


def test_a_damaged_pdf_is_named_and_the_others_are_stored(
    server: RealServer, client: Client, name: str, tmp_path: Path
) -> None:
    client.create_collection(name, recipe=Recipe(embedder={"kind": "hashing", "dim": DIM}))
    (tmp_path / "damaged.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Cata")
    (tmp_path / "good.txt").write_text("a harbour at night")
    ingest = [sys.executable, "-m", "retrieval.cli.app", "ingest", name, str(tmp_path)]
    done = subprocess.run(
        [*ingest, "--server", server.address], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "damaged.pdf" in done.stderr
    assert [document.text for document in client.list_documents(name)] == ["a harbour at night"]


async def test_cancelled_calls_stop_working(make_server: MakeServer) -> None:
    """Minutes of work, all cancelled, on a server that runs one call at a time: the next one is served."""
    server = make_server(config="[limits]\nmax_concurrent_requests = 1\n")
    server.start()
    async with AsyncClient(server.address) as client:
        await client.create_collection("docs")
        await client.upsert("docs", [FIRST], timeout=60.0)
        for number in range(40):
            texts = [f"{number} {position} " + "a harbour at night " * 60 for position in range(128)]
            call = asyncio.create_task(client.embed("docs", texts, kind="passage", timeout=60.0))
            await asyncio.wait([call], timeout=0.05)
            call.cancel()
        result = await client.search("docs", "harbour", timeout=30.0)
    assert [hit.document_id for hit in result.hits] == ["first"]
    assert server.stop() == 0
