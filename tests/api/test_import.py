"""The import stream: acknowledged batch by batch, at the server's pace, over broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ragstone import AsyncClient, Document, WriteResult, errors


def documents(n: int) -> Iterator[Document]:
    return (Document(id=str(i), text=f"text {i}") for i in range(n))


async def test_everything_arrives_in_order_and_is_counted(either: Any, app: Any) -> None:
    result = await either.import_documents("docs", documents(1000), batch=64)
    assert result == WriteResult(seq=16, documents=1000, chunks=16)
    assert list(app.documents) == [str(i) for i in range(1000)]


async def test_running_it_again_changes_nothing(either: Any, app: Any) -> None:
    await either.import_documents("docs", documents(10))
    again = await either.import_documents("docs", documents(10))
    assert (again.documents, again.unchanged) == (0, 10)


async def test_only_the_last_batch_waits_for_the_index(either: Any, app: Any) -> None:
    await either.import_documents("docs", documents(9), batch=3, wait="indexed")
    assert [arguments["wait"] for _, arguments in app.calls] == ["committed", "committed", "indexed"]


async def test_the_totals_so_far_are_told(either: Any, app: Any) -> None:
    told: list[int] = []
    await either.import_documents(
        "docs", documents(5), batch=2, on_progress=lambda r: told.append(r.documents)
    )
    assert told == [2, 4, 5]


async def test_nothing_to_import(either: Any, app: Any) -> None:
    assert await either.import_documents("docs", []) == WriteResult(seq=0)
    assert app.calls == []


async def test_an_id_that_comes_twice_ends_as_the_later_document(either: Any, app: Any) -> None:
    await either.import_documents("docs", [Document(id="1", text="old"), Document(id="1", text="new")])
    assert app.documents["1"].text == "new"


async def test_documents_may_come_asynchronously(asynchronous: AsyncClient, app: Any) -> None:
    async def trickle() -> AsyncIterator[Document]:
        for document in documents(10):
            await asyncio.sleep(0)
            yield document

    assert (await asynchronous.import_documents("docs", trickle(), batch=3)).documents == 10


async def test_a_batch_that_meets_an_unavailable_server_is_sent_again(either: Any, app: Any) -> None:
    app.errors += [errors.BackendUnavailable("one moment")] * 2
    result = await either.import_documents("docs", documents(100), batch=10)
    assert result.documents == 100
    assert list(app.documents) == [str(i) for i in range(100)]
    # The same request ids: had the first attempt been stored, the second would have changed nothing.
    assert len({arguments["request_id"] for _, arguments in app.calls}) == 10


async def test_an_overloaded_server_is_waited_for(either: Any, app: Any) -> None:
    app.errors.append(errors.Overloaded("full", retry_after_s=0.05))
    result = await either.import_documents("docs", documents(20), batch=10)
    assert result.documents == 20


async def test_a_batch_that_the_application_refuses_ends_the_import(either: Any, app: Any) -> None:
    app.errors.append(errors.NotFound("there is no collection 'docs'"))
    with pytest.raises(errors.NotFound) as caught:
        await either.import_documents("docs", documents(100), batch=10)
    assert caught.value.metadata["index"] == "0"


async def test_a_wrong_document_is_named_by_its_place_in_the_import(either: Any, app: Any) -> None:
    given = [*documents(9), Document(id="9", text="\ud800")]
    with pytest.raises(errors.InvalidArgument) as caught:
        await either.import_documents("docs", given, batch=4)
    assert caught.value.violations[0].field == "documents[9].text"


async def test_an_error_of_the_source_is_the_caller_s_own(either: Any, app: Any) -> None:
    def broken() -> Iterator[Document]:
        yield Document(id="1", text="text")
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        await either.import_documents("docs", broken(), batch=1)


async def test_no_server_at_all_is_said_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragstone.importing.ATTEMPTS", 2)
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(errors.BackendUnavailable, match="ragstone serve"):
            await client.import_documents("docs", documents(3))
