"""In which order passages are sent, and where to."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.ordering import OrderingOptions, Passages, PrefixOrderer, Replicas
from ragstone.errors import InvalidArgument

BLOCK = 16
HEAD = 40


def passages(keys: Sequence[str], *, tokens: int = 100, scope: str = "") -> Passages:
    return Passages(keys=list(keys), tokens=[tokens] * len(keys), head_tokens=HEAD, scope=scope)


def orderer(*, capacity: int = 100_000, displacement: int = 4, lead: int = 3) -> PrefixOrderer:
    return PrefixOrderer(
        OrderingOptions(
            capacity_tokens=capacity, block_size=BLOCK, max_displacement=displacement, lead_within=lead
        )
    )


def send(to: PrefixOrderer, asked: Passages) -> Passages:
    """One request; in the order in which it went."""
    sent = asked.ordered(to.order(asked))
    to.sent(sent)
    return sent


@st.composite
def requests(draw: st.DrawFn) -> Passages:
    """Sets of a few passages that overlap; a passage has the same length everywhere."""
    numbers = draw(st.lists(st.integers(0, 11), unique=True, max_size=9))
    return Passages(
        keys=[f"p{number}" for number in numbers],
        tokens=[7 + 11 * number for number in numbers],
        head_tokens=HEAD,
        scope=draw(st.sampled_from(["", "tenant"])),
    )


# -- orders ---------------------------------------------------------------------------------------


def test_with_nothing_sent_passages_stand_as_they_were_retrieved() -> None:
    assert orderer().order(passages("abcdef")) == [0, 1, 2, 3, 4, 5]


def test_passages_follow_what_was_sent_before() -> None:
    asked = orderer()
    asked.sent(passages("abcd"))
    assert "".join(passages("cabx").ordered(asked.order(passages("cabx"))).keys) == "abcx"


def test_the_path_that_reuses_the_most_is_taken_not_the_first_one() -> None:
    asked = orderer(lead=4)
    asked.sent(passages("ax"))
    asked.sent(passages("bcd"))
    assert "".join(send(asked, passages("abcd")).keys) == "bcda"


def test_a_path_that_fills_no_further_block_is_not_worth_a_move() -> None:
    asked = orderer()
    asked.sent(passages("b", tokens=7))  # 40 and 7 tokens: two whole blocks, as the head alone
    asked.sent(passages("ac", tokens=7))
    order = asked.order(passages("abc", tokens=7))
    assert asked.reusable_tokens(passages("abc", tokens=7).ordered(order)) == 48
    assert order[0] == 0


def test_where_nothing_can_be_reused_what_is_sent_most_stands_first() -> None:
    asked = orderer()
    for first in "wxyz":
        asked.sent(passages(f"{first}b"))
    assert "".join(send(asked, passages("acb")).keys) == "bac"


def test_what_was_sent_together_stands_together() -> None:
    asked = orderer()
    for number in range(3):
        asked.sent(passages(f"{number}ad"))  # a is most sent of all, but not with b
    for number in range(2):
        asked.sent(passages(f"{number}cd"))
    assert "".join(send(asked, passages("cabd")).keys) == "dacb"


def test_habits_of_long_ago_are_forgotten() -> None:
    asked = orderer(capacity=1)
    for _ in range(9):
        asked.sent(passages("b"))
    for number in range(1_024):
        asked.sent(passages([f"p{number}"]))
    assert asked.order(passages("ab")) == [0, 1]


def test_reuse_counts_whole_blocks_from_the_head_on() -> None:
    asked = orderer()
    assert asked.reusable_tokens(passages("abc")) == 0
    asked.sent(passages("abd"))
    assert asked.reusable_tokens(passages("abc")) == 240  # of 40 + 100 + 100
    assert asked.reusable_tokens(passages("bac")) == 32


def test_scopes_share_nothing() -> None:
    asked = orderer()
    for _ in range(3):
        asked.sent(passages("cba", scope="one"))
    assert asked.order(passages("abc", scope="other")) == [0, 1, 2]
    assert asked.reusable_tokens(passages("cba", scope="other")) == 0


def test_what_was_longest_unused_is_forgotten_from_its_end() -> None:
    asked = orderer(capacity=2 * HEAD + 400)
    asked.sent(passages("ab", scope="one"))
    asked.sent(passages("abc", scope="other"))
    assert asked.reusable_tokens(passages("ab", scope="one")) == 128  # the head and a
    assert asked.reusable_tokens(passages("abc", scope="other")) == 336


def test_no_passages_have_an_empty_order() -> None:
    assert send(orderer(), passages("")).keys == []


@given(st.lists(requests(), max_size=12), requests(), st.integers(0, 9), st.integers(1, 9))
def test_orders_are_permutations_within_the_bounds(
    before: list[Passages], asked: Passages, displacement: int, lead: int
) -> None:
    under_test = orderer(displacement=displacement, lead=lead)
    for one in before:
        send(under_test, one)
    order = under_test.order(asked)
    assert sorted(order) == list(range(len(asked.keys)))
    assert all(abs(place - rank) <= displacement for place, rank in enumerate(order))
    assert not order or order.index(0) < lead


@given(st.lists(requests(), max_size=12), requests(), st.integers(0, 9))
def test_no_order_reuses_less_than_that_of_retrieval(
    before: list[Passages], asked: Passages, displacement: int
) -> None:
    under_test = orderer(displacement=displacement)
    for one in before:
        send(under_test, one)
    ordered = asked.ordered(under_test.order(asked))
    assert under_test.reusable_tokens(ordered) >= under_test.reusable_tokens(asked)


@given(st.lists(requests(), max_size=12))
def test_the_same_requests_get_the_same_orders(asked: list[Passages]) -> None:
    one, other = orderer(capacity=900), orderer(capacity=900)
    assert [send(one, each).keys for each in asked] == [send(other, each).keys for each in asked]


@given(st.lists(requests(), max_size=20), st.integers(1, 1_500))
def test_memory_is_bounded(asked: list[Passages], capacity: int) -> None:
    under_test = orderer(capacity=capacity)
    for one in asked:
        send(under_test, one)
        assert under_test.held_tokens <= capacity


@given(st.lists(requests(), max_size=12), requests())
def test_what_was_sent_last_is_reused_whole(before: list[Passages], asked: Passages) -> None:
    under_test = orderer()
    for one in before:
        send(under_test, one)
    sent = send(under_test, asked)
    whole = sent.head_tokens + sum(sent.tokens)
    assert under_test.reusable_tokens(sent) == whole - whole % BLOCK


def test_many_paths_do_not_make_it_endless() -> None:
    asked = orderer(capacity=10**9, displacement=20, lead=20)
    letters = "abcdefghijklmnopqrst"
    for shift in range(20):
        for other in range(20):
            turned = letters[shift:] + letters[:shift]
            asked.sent(passages(turned[other:] + turned[:other]))
    assert sorted(asked.order(passages(letters))) == list(range(20))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"capacity_tokens": 0}, "capacity_tokens"),
        ({"capacity_tokens": 1, "block_size": 0}, "block_size"),
        ({"capacity_tokens": 1, "max_displacement": -1}, "max_displacement"),
        ({"capacity_tokens": 1, "lead_within": 0}, "lead_within"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(options: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        OrderingOptions(**options)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_passages_without_their_counts_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="1 counts for 2 passages"):
        Passages(keys=["a", "b"], tokens=[1])


# -- replicas -------------------------------------------------------------------------------------


def replicas(*names: str, slack: float = 0.25) -> Replicas:
    return Replicas({name: OrderingOptions(capacity_tokens=100_000) for name in names}, slack=slack)


def test_a_request_goes_where_most_of_it_is_cached() -> None:
    two = replicas("one", "two")
    first = two.place(passages("abcd"), {})
    two.sent(first, passages("abcd"))
    again = two.place(passages("bacx"), {})
    assert (again.replica, again.reusable_tokens) == (first.replica, 336)
    assert list(again.order) == [1, 0, 2, 3]


def test_a_replica_with_more_than_its_share_is_passed_over() -> None:
    two = replicas("one", "two")
    first = two.place(passages("abcd"), {})
    two.sent(first, passages("abcd"))
    assert two.place(passages("abcd"), {first.replica: 4}).replica != first.replica


@given(st.lists(requests(), max_size=40), st.floats(0, 1))
def test_no_replica_exceeds_its_share(asked: list[Passages], slack: float) -> None:
    three = replicas("one", "two", "three", slack=slack)
    in_flight = dict.fromkeys(("one", "two", "three"), 0)
    for number, each in enumerate(asked, start=1):
        placement = three.place(each, in_flight)
        three.sent(placement, each)
        in_flight[placement.replica] += 1
        assert max(in_flight.values()) <= max((1 + slack) * number / 3, min(in_flight.values()) + 1)


def test_sets_that_overlap_tend_to_the_same_replica_before_any_cache_knows_them() -> None:
    four = replicas("one", "two", "three", "four")
    same = sum(
        four.place(passages([f"{n}-{i}" for i in range(8)]), {}).replica
        == four.place(passages([f"{n}-{i}" for i in range(9, 1, -1)]), {}).replica
        for n in range(200)
    )
    assert 120 < same < 180  # they share 6 of 10: 0.6 and a quarter of the rest; by chance it would be 50


def test_different_passages_spread_over_all_replicas() -> None:
    four = replicas("one", "two", "three", "four")
    assert len({four.place(passages([f"p{n}"]), {}).replica for n in range(40)}) == 4


def test_a_replica_that_is_down_gets_nothing_unless_all_are() -> None:
    two = replicas("one", "two")
    assert two.place(passages("ab"), {}, down=["one"]).replica == "two"
    assert two.place(passages("ab"), {}, down=["one", "two"]).replica in {"one", "two"}


def test_no_replicas_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least one"):
        Replicas({})
