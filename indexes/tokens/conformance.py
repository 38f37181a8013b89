"""What every ``TokenIndex`` must do, as checks that any test runner can call.

A check gets an ``Opener``: it opens the index in one place, empty the first time; called again after
``close`` it opens the same one. Its token vectors have ``DIM`` numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from indexes.base import Keys, TokenBatch, TokenIndex, Vectors
from ragstone.errors import InvalidArgument

Opener: TypeAlias = Callable[[], Awaitable[TokenIndex]]
Check: TypeAlias = Callable[[Opener], Awaitable[None]]

DIM: Final = 32
_CLOSE: Final = 0.02
"""What compression may change of a cosine, in the mean over a query's tokens."""


def tokens(seed: int, length: int = 12) -> Vectors:
    """Token vectors float32 ``(length, DIM)`` of length 1, the same for the same seed."""
    drawn = np.random.default_rng(seed).standard_normal((length, DIM)).astype(np.float32)
    unit: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def ids(tokens: Vectors) -> Keys:
    """Ids for tokens that no other passage has."""
    return np.frombuffer(np.ascontiguousarray(tokens[:, :2]).tobytes(), np.int64).copy()


async def max_sim(index: TokenIndex, query: Vectors, keys: Sequence[int]) -> Vectors:
    """The scores of a query all of whose tokens are equally rare."""
    return await index.max_sim(query, np.full(len(query), -1), keys)


def batch(passages: Mapping[int, Vectors], deleted: Sequence[int] = ()) -> TokenBatch:
    """One step: these passages come, those keys go."""
    return TokenBatch(
        keys=np.array(list(passages), np.int64),
        tokens=list(passages.values()),
        ids=[ids(passage) for passage in passages.values()],
        deleted=np.array(deleted, np.int64),
    )


async def an_empty_index_has_no_scores(opener: Opener) -> None:
    """Nothing applied: position 0, NaN for every key."""
    index = await opener()
    assert index.applied_seq == 0
    assert index.stats().live == 0
    assert np.isnan(await max_sim(index, tokens(0), [1, 2])).all()
    await index.close()


async def a_score_is_the_mean_of_the_best_cosines(opener: Opener) -> None:
    """As brute force has it, but for what compression changes; a passage's own tokens score 1."""
    index, passages = await _filled(opener)
    query = tokens(3)
    truth = [np.mean((query @ passage.T).max(axis=1)) for passage in passages.values()]
    scores = await max_sim(index, query, list(passages))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, truth, atol=_CLOSE)
    assert int(np.argmax(scores)) == 3
    await index.close()


async def a_token_that_few_passages_have_weighs_more(opener: Opener) -> None:
    """As it stands in every passage, one tells them apart no more."""
    index = await opener()
    everywhere, rare, other = tokens(0, length=3)
    passages = {0: np.stack([everywhere, rare]), 1: np.stack([everywhere, other])}
    passages |= {key: np.stack([everywhere, *tokens(key)]) for key in range(2, 40)}
    known = TokenBatch(
        keys=np.array(list(passages), np.int64),
        tokens=list(passages.values()),
        ids=[np.array([7, 100 + key] + [200] * (len(rows) - 2)) for key, rows in passages.items()],
        deleted=np.array([], np.int64),
    )
    await index.apply(known, seq=1)
    query = np.stack([everywhere, rare])
    as_rare, as_common = [await index.max_sim(query, np.array([7, second]), [0, 1]) for second in (100, 7)]
    assert abs(as_rare[0] - 1) < _CLOSE
    assert as_rare[0] - as_rare[1] > 1.5 * (as_common[0] - as_common[1]) > 0
    await index.close()


async def scores_come_in_the_order_of_the_keys(opener: Opener) -> None:
    """One a key, NaN where there is none, whatever else is asked with it."""
    index, _ = await _filled(opener)
    asked = [4, 999, 0, 2]
    scores = await max_sim(index, tokens(8), asked)
    alone = [(await max_sim(index, tokens(8), [key]))[0] for key in asked]
    np.testing.assert_allclose(scores, alone, rtol=1e-5)
    assert np.isnan(scores[1])
    await index.close()


async def a_step_is_applied_once(opener: Opener) -> None:
    """Nothing happens when ``seq <= applied_seq``."""
    index, passages = await _filled(opener)
    await index.apply(batch({}, deleted=list(passages)), seq=index.applied_seq)
    assert index.stats().live == len(passages)
    await index.close()


async def the_same_passage_again_counts_once(opener: Opener) -> None:
    """A follower that reads a step again changes nothing."""
    index, passages = await _filled(opener)
    await index.checkpoint()
    before = await max_sim(index, tokens(8), list(passages))
    await index.apply(batch(passages), seq=2)
    assert index.stats().live == len(passages)
    np.testing.assert_array_equal(await max_sim(index, tokens(8), list(passages)), before)
    await index.close()


async def what_is_deleted_has_no_score(opener: Opener) -> None:
    """Whether it was durable already or not, and also after reopening."""
    index, _ = await _filled(opener)
    await index.checkpoint()
    await index.apply(batch({10: tokens(10)}), seq=2)
    await index.apply(batch({}, deleted=[1, 10, 777]), seq=3)
    assert np.isnan(await max_sim(index, tokens(0), [1, 10])).all()
    assert index.stats().live == 4
    await index.checkpoint()
    await index.close()
    again = await opener()
    assert np.isnan(await max_sim(again, tokens(0), [1, 10])).all()
    assert again.stats().live == 4
    await again.close()


async def a_reopened_index_gives_the_same_scores(opener: Opener) -> None:
    """What a checkpoint has reached is there again, with its position."""
    index, passages = await _filled(opener)
    assert await index.checkpoint() == 1
    before = await max_sim(index, tokens(9), list(passages))
    await index.close()
    again = await opener()
    assert again.applied_seq == 1
    np.testing.assert_array_equal(await max_sim(again, tokens(9), list(passages)), before)
    await again.close()


async def what_no_checkpoint_has_reached_is_read_again(opener: Opener) -> None:
    """After a close without one, the position says from where."""
    index, _ = await _filled(opener)
    await index.checkpoint()
    await index.apply(batch({10: tokens(10)}), seq=2)
    await index.close()
    again = await opener()
    assert again.applied_seq == (2 if not np.isnan(await max_sim(again, tokens(0), [10])).any() else 1)
    await again.close()


async def wrong_vectors_are_refused_whole(opener: Opener) -> None:
    """Another dimension, no token at all, or NaN: nothing of the batch is visible."""
    index, passages = await _filled(opener)
    broken = tokens(1)
    broken[0, 0] = np.nan
    for wrong in (tokens(1)[:, :-1], tokens(1)[:0], broken):
        try:
            await index.apply(batch({20: tokens(20), 21: wrong}), seq=2)
        except InvalidArgument:
            pass
        else:
            raise AssertionError("was taken")
    assert index.applied_seq == 1
    assert index.stats().live == len(passages)
    try:
        await max_sim(index, tokens(1)[:, :-1], [0])
    except InvalidArgument:
        pass
    else:
        raise AssertionError("a query of another dimension was answered")
    await index.close()


async def scores_can_be_asked_while_it_applies(opener: Opener) -> None:
    """A passage has its score from the moment of its step on, and never a wrong one."""
    index, passages = await _filled(opener)
    truth = await max_sim(index, tokens(8), list(passages))

    async def write() -> None:
        for seq in range(2, 30):
            await index.apply(batch({seq * 10: tokens(seq)}), seq=seq)
            if seq % 7 == 0:
                await index.checkpoint()

    async def ask() -> None:
        for _ in range(60):
            np.testing.assert_array_equal(await max_sim(index, tokens(8), list(passages)), truth)

    await asyncio.gather(write(), ask())
    assert not np.isnan(await max_sim(index, tokens(8), [seq * 10 for seq in range(2, 30)])).any()
    await index.close()


async def _filled(opener: Opener) -> tuple[TokenIndex, dict[int, Vectors]]:
    """An index of five passages of different lengths, at position 1."""
    index = await opener()
    passages = {key: tokens(key, length=6 + 3 * key) for key in range(5)}
    passages[3] = tokens(3)
    await index.apply(batch(passages), seq=1)
    return index, passages


async def what_it_holds_is_as_of_its_position(opener: Opener) -> None:
    """While passages come and are made durable, whoever looks sees all of a step or nothing of it."""
    index = await opener()
    last = 60

    async def work() -> None:
        for seq in range(1, last + 1):
            await index.apply(batch({2 * seq: tokens(seq), 2 * seq + 1: tokens(-seq % 97)}), seq=seq)
            if seq % 4 == 0:
                await index.checkpoint()

    working = asyncio.create_task(work())
    while not working.done():
        seq, live = index.applied_seq, index.stats().live
        if index.applied_seq == seq:
            assert live == 2 * seq
        await asyncio.sleep(0)
    await working
    assert (index.applied_seq, index.stats().live) == (last, 2 * last)
    await index.close()


TOKEN_INDEX_CHECKS: Final[tuple[Check, ...]] = (
    an_empty_index_has_no_scores,
    what_it_holds_is_as_of_its_position,
    a_score_is_the_mean_of_the_best_cosines,
    a_token_that_few_passages_have_weighs_more,
    scores_come_in_the_order_of_the_keys,
    a_step_is_applied_once,
    the_same_passage_again_counts_once,
    what_is_deleted_has_no_score,
    a_reopened_index_gives_the_same_scores,
    what_no_checkpoint_has_reached_is_read_again,
    wrong_vectors_are_refused_whole,
    scores_can_be_asked_while_it_applies,
)
