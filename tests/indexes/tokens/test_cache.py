"""The cache of passages: bounded, and never older than what is stored."""

import numpy as np

from indexes.tokens.cache import PassageCache
from indexes.tokens.compression import Packed

PASSAGE = Packed(np.ones((10, 32), np.int8), np.ones(10, np.float32))
ROOM = 10_000


def test_what_was_put_is_there() -> None:
    cache = PassageCache(ROOM)
    cache.put({1: PASSAGE, 2: PASSAGE}, cache.generation)
    assert cache.get([1, 2, 3]).keys() == {1, 2}


def test_it_holds_no_more_bytes_than_it_may() -> None:
    cache = PassageCache(ROOM)
    cache.put(dict.fromkeys(range(100), PASSAGE), cache.generation)
    assert 0 < len(cache.get(range(100))) * PASSAGE.codes.nbytes <= ROOM


def test_a_passage_larger_than_the_whole_cache_is_passed_over() -> None:
    cache = PassageCache(100)
    cache.put({1: PASSAGE}, cache.generation)
    assert cache.get([1]) == {}


def test_what_was_forgotten_is_gone_and_the_rest_stays() -> None:
    cache = PassageCache(ROOM)
    cache.put({1: PASSAGE, 2: PASSAGE}, cache.generation)
    cache.forget([1, 7])
    assert cache.get([1, 2]).keys() == {2}


def test_what_was_read_before_something_was_forgotten_does_not_enter() -> None:
    cache = PassageCache(ROOM)
    before = cache.generation
    cache.forget([1])
    cache.put({1: PASSAGE}, before)
    assert cache.get([1]) == {}
