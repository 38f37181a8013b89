"""Merging journal steps: the net effect, in any grouping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.store.values import ChunkRow, Step
from retrieval.versions.steps import merge, text_batch


def row(key: int, title: str = "") -> ChunkRow:
    return ChunkRow(
        key=key,
        chunk_id=f"d#{key}",
        document_id="d",
        ordinal=0,
        start=0,
        end=1,
        text="t",
        text_hash=b"h",
        title=title,
        metadata_json="{}",
        language="en",
        context="the surroundings",
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Steps as a journal makes them: keys enter once, and leave later or never."""
    steps, live, key = [], set[int](), 0
    for seq in range(1, draw(st.integers(1, 8)) + 1):
        gone = draw(st.sets(st.sampled_from(sorted(live)))) if live else set()
        new = list(range(key, key + draw(st.integers(0, 4))))
        key += len(new)
        live = (live - gone) | set(new)
        steps.append(Step(seq=seq, added=tuple(row(k) for k in new), deleted=tuple(sorted(gone))))
    return steps


def apply(live: set[int], step: Step) -> set[int]:
    return (live - set(step.deleted)) | {r.key for r in step.added}


@given(histories())
def test_merged_steps_do_what_the_steps_do_one_after_another(steps: list[Step]) -> None:
    one_by_one: set[int] = set()
    for step in steps:
        one_by_one = apply(one_by_one, step)
    assert apply(set(), merge(steps)) == one_by_one


@given(histories())
def test_a_merged_step_stands_at_the_last_position(steps: list[Step]) -> None:
    assert merge(steps).seq == steps[-1].seq


def test_the_lexical_leg_reads_the_title_and_the_surroundings() -> None:
    assert text_batch(Step(seq=1, added=(row(1, "A title"),))).texts == ["A title the surroundings"]


@pytest.mark.parametrize(
    ("boost", "text"), [(0, "the surroundings"), (3, "A title A title A title the surroundings")]
)
def test_a_title_s_terms_count_as_often_as_the_recipe_says(boost: int, text: str) -> None:
    step = Step(seq=1, added=(row(1, "A title"),))
    assert text_batch(step, title_boost=boost).texts == [text]
