"""What writes do, and what they are answered with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest

from ragstone.errors import Conflict, NotFound
from retrieval.store.catalog import Catalog, CollectionRow
from retrieval.store.database import Database
from retrieval.store.documents import Documents
from retrieval.store.journal import ChunkRow, Committed, DocumentDraft, Journal, Step

Drafter = Callable[..., DocumentDraft]
Put = Callable[..., Awaitable[Committed]]
Remove = Callable[..., Awaitable[Committed]]


@pytest.fixture
def journal(db: Database) -> Journal:
    return Journal(db)


@pytest.fixture
def remove(journal: Journal, collection: CollectionRow) -> Remove:
    """``remove(*ids)``: delete from the collection."""

    async def delete(*ids: str, request_id: str | None = None) -> Committed:
        return await journal.delete(collection.id, ids, request_id=request_id, tenant="t", fingerprint="f")

    return delete


def step(committed: Committed) -> Step:
    """The step of a write that changed something."""
    assert committed.step is not None
    return committed.step


def keys(rows: Sequence[ChunkRow]) -> tuple[int, ...]:
    return tuple(row.key for row in rows)


async def test_upsert_answers_with_the_step_that_its_followers_will_read(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await put(draft("a", "one\ntwo", title="A", metadata_json='{"x":1}'), draft("b", "three"))
    assert (committed.documents, committed.unchanged, committed.chunks) == (2, 0, 3)
    assert await journal.read(collection.id, "lines", after=0) == [step(committed)]


async def test_followers_get_the_window_of_text_around_a_chunk(draft: Drafter, put: Put) -> None:
    committed = await put(draft("a", "first\nsecond\nthird"))
    assert [row.context for row in step(committed).added] == ["first\nsec", "rst\nsecond\nthi", "ond\nthird"]


async def test_windows_count_code_points(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    await put(draft("a", "äöü€\n😀😀"))
    (read,) = await journal.read(collection.id, "lines", after=0)
    assert [row.context for row in read.added] == ["äöü€\n😀😀", "öü€\n😀😀"]


async def test_keys_ascend_and_are_never_used_again(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put, remove: Remove
) -> None:
    first = await put(draft("a", "one\ntwo"))
    await remove("a")
    await journal.prune(collection.id, "lines", 99)
    second = await put(draft("a", "one\ntwo"))
    seen = keys(step(first).added) + keys(step(second).added)
    assert list(seen) == sorted(set(seen))


async def test_unchanged_documents_cost_nothing(journal: Journal, draft: Drafter, put: Put) -> None:
    first = await put(draft("a", "one"))
    again = await put(draft("a", "one"))
    assert again == Committed(seq=first.seq, unchanged=1)


async def test_only_the_changed_documents_of_a_batch_are_written(draft: Drafter, put: Put) -> None:
    await put(draft("a", "one"), draft("b", "two"))
    committed = await put(draft("a", "one"), draft("b", "three"))
    assert (committed.documents, committed.unchanged) == (1, 1)
    assert [row.text for row in step(committed).added] == ["three"]


async def test_replacing_a_document_replaces_all_its_chunks(draft: Drafter, put: Put) -> None:
    first = await put(draft("a", "one\ntwo"))
    second = await put(draft("a", "one\nthree"))
    assert step(second).deleted == keys(step(first).added)
    assert [row.text for row in step(second).added] == ["one", "three"]


async def test_change_of_metadata_alone_is_a_change(draft: Drafter, put: Put) -> None:
    await put(draft("a", "one"))
    committed = await put(draft("a", "one", metadata_json='{"year":2001}'))
    assert step(committed).added[0].metadata_json == '{"year":2001}'


async def test_of_two_drafts_with_one_id_the_last_counts(
    db: Database, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await put(draft("a", "one"), draft("a", "two"))
    document = await Documents(db).get(collection.id, "a")
    assert document is not None
    assert (committed.documents, document.text) == (1, "two")


async def test_document_without_chunks_is_stored(db: Database, collection: CollectionRow, put: Put) -> None:
    empty = DocumentDraft(
        id="a", title="", text="", language="", metadata_json="{}", content_hash=b"h", chunks=()
    )
    assert (await put(empty)).chunks == 0
    assert await Documents(db).get(collection.id, "a") is not None


async def test_deleting_removes_documents_and_chunks(
    db: Database, collection: CollectionRow, draft: Drafter, put: Put, remove: Remove
) -> None:
    written = await put(draft("a", "one\ntwo"), draft("b", "three"))
    committed = await remove("a", "a", "unknown")
    assert (committed.documents, step(committed).deleted) == (1, keys(step(written).added)[:2])
    assert await Documents(db).get(collection.id, "a") is None


async def test_deleting_only_unknown_ids_changes_nothing(draft: Drafter, put: Put, remove: Remove) -> None:
    written = await put(draft("a", "one"))
    assert await remove("unknown") == Committed(seq=written.seq)


async def test_batches_beyond_the_limit_of_bound_parameters_work(
    draft: Drafter, put: Put, remove: Remove
) -> None:
    documents = [draft(f"d{number}", f"text {number}") for number in range(1201)]
    assert (await put(*documents)).documents == 1201
    assert (await put(*documents)).unchanged == 1201
    assert (await remove(*(document.id for document in documents))).documents == 1201


async def test_position_orders_the_writes_of_all_collections(
    db: Database, journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    other = await Catalog(db).create("other", recipe="{}", space="s2", dim=2, chunking="lines")
    first = await put(draft("a", "one"))
    second = await journal.upsert(
        other.id, "lines", "s2", [draft("a", "one")], request_id=None, tenant="t", fingerprint="f"
    )
    assert first.seq < second.seq
    assert await journal.head(collection.id) == first.seq
    assert await journal.head(other.id) == second.seq


async def test_concurrent_writes_get_a_position_each(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await asyncio.gather(*(put(draft(f"d{n}", "text")) for n in range(20)))
    assert sorted(c.seq for c in committed) == list(range(1, 21))
    steps = await journal.read(collection.id, "lines", after=0)
    assert {s.seq: s for s in steps} == {c.seq: step(c) for c in committed}


# -- request ids ----------------------------------------------------------------------------


async def test_repeated_request_gets_the_first_answer(draft: Drafter, put: Put) -> None:
    first = await put(draft("a", "one"), request_id="r")
    await put(draft("a", "two"))
    again = await put(draft("a", "one"), request_id="r")
    assert again == Committed(seq=first.seq, documents=1, chunks=1, replayed=True)


async def test_repeated_deletion_gets_the_first_answer(draft: Drafter, put: Put, remove: Remove) -> None:
    await put(draft("a", "one"))
    first = await remove("a", request_id="r")
    await put(draft("a", "one"))
    again = await remove("a", request_id="r")
    assert (again.seq, again.documents, again.replayed) == (first.seq, 1, True)


async def test_request_that_changed_nothing_is_remembered_too(draft: Drafter, put: Put) -> None:
    first = await put(draft("a", "one"))
    await put(draft("a", "one"), request_id="r")
    await put(draft("a", "two"))
    again = await put(draft("a", "one"), request_id="r")
    assert again == Committed(seq=first.seq, unchanged=1, replayed=True)


async def test_request_id_used_for_another_request_is_refused(draft: Drafter, put: Put) -> None:
    await put(draft("a", "one"), request_id="r", fingerprint="f")
    with pytest.raises(Conflict):
        await put(draft("a", "two"), request_id="r", fingerprint="g")


async def test_request_ids_of_two_tenants_do_not_meet(draft: Drafter, put: Put) -> None:
    await put(draft("a", "one"), request_id="r", tenant="t")
    assert not (await put(draft("a", "two"), request_id="r", tenant="u", fingerprint="g")).replayed


async def test_same_request_sent_twice_at_once_is_done_once(draft: Drafter, put: Put) -> None:
    both = await asyncio.gather(*(put(draft("a", "one"), request_id="r") for _ in range(2)))
    assert sorted(c.replayed for c in both) == [False, True]


async def test_forgotten_requests_run_again(journal: Journal, draft: Drafter, put: Put) -> None:
    await put(draft("a", "one"), request_id="r")
    assert await journal.forget_requests(datetime.max.replace(tzinfo=UTC)) == 1
    assert not (await put(draft("a", "one"), request_id="r")).replayed


async def test_unknown_collection_is_not_found(journal: Journal, draft: Drafter) -> None:
    with pytest.raises(NotFound):
        await journal.upsert(
            99, "lines", "s2", [draft("a", "one")], request_id=None, tenant="t", fingerprint="f"
        )


# -- following ------------------------------------------------------------------------------


async def test_follower_at_the_head_has_nothing_to_read(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await put(draft("a", "one"))
    assert await journal.read(collection.id, "lines", after=committed.seq) == []


async def test_chunk_that_came_and_went_is_not_added_but_the_position_moves(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put, remove: Remove
) -> None:
    await put(draft("a", "one"))
    head = (await remove("a")).seq
    assert await journal.read(collection.id, "lines", after=0) == [Step(seq=head)]


async def test_follower_of_another_chunking_only_moves_on(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await put(draft("a", "one"))
    assert await journal.read(collection.id, "words", after=0) == [Step(seq=committed.seq)]


async def test_reading_ends_at_upto(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    first, _ = await put(draft("a", "one")), await put(draft("b", "two"))
    assert await journal.read(collection.id, "lines", after=0, upto=first.seq) == [step(first)]


async def test_limit_never_splits_a_write(
    journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    first, _ = await put(draft("a", "1\n2\n3")), await put(draft("b", "4"))
    assert await journal.read(collection.id, "lines", after=0, limit_chunks=2) == [step(first)]


async def test_pruned_chunks_are_gone_and_live_ones_stay(
    db: Database, journal: Journal, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    old, new = step(await put(draft("a", "one"))), step(await put(draft("a", "two")))
    assert await journal.prune(collection.id, "lines", old.seq) == 0
    assert await journal.prune(collection.id, "lines", new.seq) == 1
    assert set(await Documents(db).chunks(keys(old.added) + keys(new.added))) == set(keys(new.added))
