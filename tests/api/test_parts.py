"""The rules of the protos beside the client's own limits, and the order of admission."""

from __future__ import annotations

import asyncio

import pytest

from ragstone import wire
from ragstone.errors import InvalidArgument, Overloaded
from ragstone.v1 import documents_pb2, values_pb2
from retrieval.api.admission import Admission
from retrieval.api.requests import Reader


def upsert(*documents: values_pb2.Document) -> bytes:
    request = documents_pb2.UpsertDocumentsRequest(collection="docs", documents=documents)
    return request.SerializeToString()


def test_the_client_s_limit_of_a_text_is_the_rule_in_the_proto() -> None:
    reader, kind = Reader(), documents_pb2.UpsertDocumentsRequest
    reader.read(kind, upsert(values_pb2.Document(id="1", text="x" * wire.MAX_TEXT_BYTES)))
    with pytest.raises(InvalidArgument):
        reader.read(kind, upsert(values_pb2.Document(id="1", text="x" * (wire.MAX_TEXT_BYTES + 1))))


def test_the_client_s_limit_of_documents_is_the_rule_in_the_proto() -> None:
    reader, kind = Reader(), documents_pb2.UpsertDocumentsRequest
    documents = [values_pb2.Document(id=str(i), text="x") for i in range(wire.MAX_DOCUMENTS + 1)]
    reader.read(kind, upsert(*documents[:-1]))
    with pytest.raises(InvalidArgument):
        reader.read(kind, upsert(*documents))


async def test_those_who_wait_are_admitted_in_order() -> None:
    admission = Admission(running=1, waiting=10)
    order: list[int] = []

    async def work(number: int) -> None:
        async with admission:
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_a_place_is_free_again_after_a_failure() -> None:
    admission = Admission(running=1, waiting=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with admission:
                raise ZeroDivisionError


async def test_one_too_many_is_shed() -> None:
    admission = Admission(running=1, waiting=0)
    async with admission:
        with pytest.raises(Overloaded):
            async with admission:
                pass


@pytest.mark.parametrize("moment", ["waiting", "handed over"])
async def test_a_place_survives_one_who_is_cancelled_in_the_queue(moment: str) -> None:
    admission = Admission(running=1, waiting=2)

    async def work() -> None:
        async with admission:
            pass

    await admission.__aenter__()
    quitter = asyncio.create_task(work())
    await asyncio.sleep(0)
    if moment == "waiting":
        quitter.cancel()
        await asyncio.sleep(0)
        await admission.__aexit__(None, None, None)
    else:
        await admission.__aexit__(None, None, None)
        quitter.cancel()
    await asyncio.gather(quitter, return_exceptions=True)
    await asyncio.wait_for(work(), 5)
