"""Vectors by content: stored once, found by every chunk with the same text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from ragstone.errors import CorruptIndex, InvalidArgument
from retrieval.store.catalog import CollectionRow
from retrieval.store.database import Database
from retrieval.store.embeddings import Embeddings
from retrieval.store.journal import Committed, DocumentDraft, Journal

Drafter = Callable[..., DocumentDraft]
Put = Callable[..., Awaitable[Committed]]

A, B, C = (letter * 32 for letter in (b"a", b"b", b"c"))


@pytest.fixture
def embeddings(db: Database) -> Embeddings:
    return Embeddings(db)


def rows(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Vectors of two equal elements."""
    return np.array([[value, value] for value in values], dtype=np.float32)


async def test_vectors_come_back_in_the_order_asked_and_gaps_are_marked(embeddings: Embeddings) -> None:
    await embeddings.put_many("s", [A, B], rows(1, 2))
    vectors, missing = await embeddings.get_many("s", [B, C, A, B], 2)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == rows(2, 0, 1, 2).tolist()
    assert missing.tolist() == [False, True, False, False]


async def test_nothing_asked_is_nothing_found(embeddings: Embeddings) -> None:
    vectors, missing = await embeddings.get_many("s", [], 2)
    assert (vectors.shape, missing.shape) == ((0, 2), (0,))


async def test_first_vector_of_a_text_stays(embeddings: Embeddings) -> None:
    await embeddings.put_many("s", [A], rows(1))
    await embeddings.put_many("s", [A, B], rows(9, 2))
    vectors, _ = await embeddings.get_many("s", [A, B], 2)
    assert vectors.tolist() == rows(1, 2).tolist()


async def test_spaces_do_not_meet(embeddings: Embeddings) -> None:
    await embeddings.put_many("s", [A], rows(1))
    _, missing = await embeddings.get_many("t", [A], 2)
    assert missing.tolist() == [True]


async def test_vector_of_another_dimension_is_damage(embeddings: Embeddings) -> None:
    await embeddings.put_many("s", [A], rows(1))
    with pytest.raises(CorruptIndex):
        await embeddings.get_many("s", [A], 3)


async def test_vectors_must_fit_the_hashes(embeddings: Embeddings) -> None:
    with pytest.raises(InvalidArgument):
        await embeddings.put_many("s", [A, B], rows(1))


async def test_vectors_given_with_a_write_are_stored(
    embeddings: Embeddings, draft: Drafter, put: Put
) -> None:
    document = draft("a", "one\nfour")
    await put(document)
    vectors, missing = await embeddings.get_many("s2", [chunk.text_hash for chunk in document.chunks], 2)
    assert not missing.any()
    assert vectors.tolist() == [[3, 0], [4, 1]]


async def test_missing_lists_live_chunks_without_a_vector_page_by_page(
    db: Database, embeddings: Embeddings, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    await put(draft("a", "one\ntwo\nthree"), draft("b", "gone"), draft("c", "four"))
    await Journal(db).delete(collection.id, ["b"], request_id=None, tenant="t", fingerprint="f")
    assert await embeddings.missing("s2", collection.id, "lines", 10) == []
    first = await embeddings.missing("new", collection.id, "lines", 3)
    assert [row.text for row in first] == ["one", "two", "three"]
    rest = await embeddings.missing("new", collection.id, "lines", 3, after=first[-1].position)
    assert [row.text for row in rest] == ["four"]
    await embeddings.put_many("new", [first[0].text_hash], rows(1))
    again = await embeddings.missing("new", collection.id, "lines", 10)
    assert [row.text for row in again] == ["two", "three", "four"]


async def test_sweep_removes_only_vectors_that_no_chunk_refers_to(
    embeddings: Embeddings, draft: Drafter, put: Put
) -> None:
    document = draft("a", "one")
    await put(document)
    await embeddings.put_many("s2", [A], rows(1))
    assert await embeddings.sweep() == 1
    _, missing = await embeddings.get_many("s2", [A, document.chunks[0].text_hash], 2)
    assert missing.tolist() == [True, False]


async def test_texts_of_a_space_are_those_that_have_a_vector_in_it(
    embeddings: Embeddings, draft: Drafter, put: Put
) -> None:
    document = draft("a", "one\ntwo\nthree")
    await put(document)
    await embeddings.put_many("new", [document.chunks[2].text_hash, document.chunks[1].text_hash], rows(1, 2))
    assert [row.text for row in await embeddings.texts("new", limit=10)] == ["two", "three"]
    assert [row.text for row in await embeddings.texts("new", limit=1)] == ["two"]
    assert await embeddings.texts("nowhere", limit=10) == []
