"""The lanes of the batcher: whose turn it is, what fills a batch, and who may still come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from embedders.fairness import Entry, Lane

BUDGET = 100


@dataclass(slots=True, eq=False, kw_only=True)
class Text(Entry):
    tenant: str


def add(lane: Lane[Text], tenant: str, *lengths: int) -> list[Text]:
    texts = [Text(tokens=length, tenant=tenant) for length in lengths]
    lane.add(tenant, texts)
    return texts


def take(lane: Lane[Text]) -> Counter[str]:
    """Tokens of the next batch by tenant."""
    served: Counter[str] = Counter()
    for text in lane.take(BUDGET):
        served[text.tenant] += text.tokens
    return served


def drain(lane: Lane[Text]) -> list[Counter[str]]:
    batches = []
    while lane:
        batches.append(take(lane))
    return batches


def test_a_flood_does_not_keep_others_waiting() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "flood", *[10] * 1000)
    for _ in range(20):
        take(lane)
    add(lane, "light", 10, 10)
    assert take(lane)["light"] == 20


def test_a_text_of_another_length_than_the_flood_opens_the_next_batch() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "flood", *[10] * 1000)
    take(lane)
    add(lane, "light", 90)
    assert take(lane)["light"] == 90


def test_tenants_that_always_wait_get_the_same_share() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "many", *[10] * 900)
    add(lane, "long", *[50] * 60)
    add(lane, "few", *[10] * 100)
    served: Counter[str] = Counter()
    for _ in range(24):
        served += take(lane)
    assert max(served.values()) - min(served.values()) <= 2 * (BUDGET + 50)


def test_a_batch_is_full_whoever_waits() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "flood", *[10] * 1000)
    for i in range(50):
        add(lane, f"light {i % 3}", 10)
        assert take(lane).total() == BUDGET


def test_who_was_away_saved_nothing_up() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "always", *[10] * 1000)
    for _ in range(50):
        take(lane)
    add(lane, "back again", *[10] * 500)
    served: Counter[str] = Counter()
    for _ in range(20):
        served += take(lane)
    assert abs(served["always"] - served["back again"]) <= 2 * (BUDGET + 10)


def test_who_comes_and_goes_cannot_pass_others_by() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "waits", *[20] * 200)
    served: Counter[str] = Counter()
    for _ in range(60):
        add(lane, "comes and goes", *[100] * 2)
        served += take(lane)
    assert served["waits"] >= served["comes and goes"] - 2 * (BUDGET + 100)


def test_what_nobody_else_could_use_is_not_held_against_a_tenant() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "flood", *[10] * 1000)
    for _ in range(50):
        add(lane, "light", 5)
        take(lane)
    add(lane, "newcomer", *[10] * 500)
    served: Counter[str] = Counter()
    for _ in range(20):
        served += take(lane)
    assert abs(served["flood"] - served["newcomer"]) <= 2 * (BUDGET + 10)


def test_oldest_first_within_a_tenant() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    texts = add(lane, "one", 60, 5, 60, 60)
    assert [lane.take(BUDGET)[0] for _ in range(3)] == texts[:3]


def test_a_tenant_alone_leaves_a_fifth_of_the_room() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    assert lane.room("flood", 1000) == 800
    add(lane, "flood", *[10] * 80)
    assert lane.room("flood", 1000) == 0
    assert lane.room("another", 1000) == 160


def test_what_is_ahead_of_a_tenant_is_what_is_served_before_its_own() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    add(lane, "flood", *[10] * 80)
    assert lane.ahead("flood", 10) == 800
    assert lane.ahead("light", 10) == 20


def test_nobody_in_a_lane_is_remembered_when_it_is_empty() -> None:
    lane: Lane[Text] = Lane(BUDGET)
    for i in range(500):
        add(lane, f"tenant {i}", 10)
    drain(lane)
    assert (lane.tokens, len(lane._lines), len(lane._turns), len(lane._lengths)) == (0, 0, 0, 0)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcd"), st.lists(st.integers(1, 150), min_size=1, max_size=12)),
        st.integers(1, 4),
        st.just("cancel"),
    ),
    max_size=40,
)


@given(steps=steps)
def test_every_entry_is_served_once_or_cancelled(steps: Sequence[tuple[str, list[int]] | int | str]) -> None:
    lane: Lane[Text] = Lane(BUDGET)
    waiting: list[Text] = []
    calls: list[list[Text]] = []
    for step in [*steps, 10_000]:
        match step:
            case (tenant, lengths):
                calls.append(add(lane, tenant, *lengths))
                waiting += calls[-1]
            case int(batches):
                for _ in range(batches):
                    if not lane:
                        break
                    batch = lane.take(BUDGET)
                    assert len(batch) == 1 or max(t.tokens for t in batch) * len(batch) <= BUDGET
                    for text in batch:
                        waiting.remove(text)
            case "cancel" if calls:
                gone = calls.pop()
                lane.discard(gone)
                waiting = [text for text in waiting if text not in gone]
        assert lane.tokens == sum(text.tokens for text in waiting)
        for tenant in "abcd":
            assert lane.held(tenant) == sum(text.tokens for text in waiting if text.tenant == tenant)
    assert not waiting


@given(
    first=st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 150), min_size=1, max_size=60)),
    later=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 150)), max_size=60),
)
def test_who_waits_is_served_after_a_bounded_number_of_batches(
    first: dict[str, list[int]], later: list[tuple[str, int]]
) -> None:
    """However much the others have waiting, and whenever they come: the bound that ``Lane`` tells of.

    Another tenant opens batches while its account is not above the waiting one's, which is less than a batch
    and an entry ahead; and each one that it opens costs it an eighth of a batch at least.
    """
    opened_by_each = (BUDGET + 150) // (BUDGET // 8) + 2
    lane: Lane[Text] = Lane(BUDGET)
    for tenant, lengths in first.items():
        add(lane, tenant, *lengths)
    arrivals = iter(later)
    passed: Counter[str] = Counter()
    while lane:
        for tenant in "abcd":
            passed[tenant] = passed[tenant] + 1 if lane.held(tenant) else 0
        served = take(lane)
        for tenant in served:
            passed[tenant] = 0
        assert max(passed.values()) <= 3 * opened_by_each
        if (arrival := next(arrivals, None)) is not None:
            add(lane, *arrival)


@given(
    queued=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 300), min_size=2),
    length=st.integers(1, 60),
)
def test_texts_of_like_length_are_served_equally(queued: dict[str, int], length: int) -> None:
    lane: Lane[Text] = Lane(BUDGET)
    for tenant, number in queued.items():
        add(lane, tenant, *[length] * number)
    served: Counter[str] = Counter(dict.fromkeys(queued, 0))
    while all(lane.held(tenant) for tenant in queued):
        served += take(lane)
        if all(lane.held(tenant) for tenant in queued):
            assert max(served.values()) - min(served[tenant] for tenant in queued) <= 2 * (BUDGET + length)
