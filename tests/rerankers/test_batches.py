"""Batches: all texts, little padding, and the first texts first."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rerankers.batches import plan

lengths = st.lists(st.integers(1, 512), max_size=60)


@given(lengths)
def test_every_text_is_in_one_batch(lengths: list[int]) -> None:
    batches = plan(lengths, batch_tokens=1024, group_tokens=4096)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))


@given(lengths)
def test_a_batch_of_several_keeps_to_its_tokens_with_padding(lengths: list[int]) -> None:
    for batch in plan(lengths, batch_tokens=256, group_tokens=4096):
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 256


@given(lengths)
def test_no_group_begins_before_the_one_in_front_of_it_is_through(lengths: list[int]) -> None:
    batches = plan(lengths, batch_tokens=64, group_tokens=512)
    begun = 0
    for batch, following in pairwise(batches):
        begun = max(begun, *batch)
        # What comes later is of the same group, or behind all that came before.
        assert min(following) > begun or sum(lengths[min(following) : begun + 1]) <= 512 + 512


def test_texts_of_like_length_go_together() -> None:
    assert plan([10, 100, 11, 99], batch_tokens=200, group_tokens=1000) == [[1, 3], [2, 0]]


def test_a_text_longer_than_a_batch_goes_alone() -> None:
    assert plan([5, 300, 5], batch_tokens=100, group_tokens=1000) == [[1], [0, 2]]
