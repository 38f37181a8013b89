"""Query adapters: what each kind recovers exactly, what is measured, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedders.base import Space, Vectors
from embedders.registry import open_embedder
from ragstone.errors import CorruptIndex, InvalidArgument, SpaceMismatch
from retrieval.versions.adapters.adapter import MIN_ROWS, Adapter, unit
from retrieval.versions.adapters.picking import KINDS, MIN_SAMPLE, fit, pick

ROWS = 200


def space(name: str, dim: int, *, normalised: bool = True) -> Space:
    return Space(name=name, dim=dim, normalised=normalised)


def rotation(dim: int, seed: int) -> NDArray[np.float64]:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def texts(dim: int, seed: int, rows: int = ROWS) -> Vectors:
    """Unit vectors around a few topics and a common mean, as texts have them."""
    chance = np.random.default_rng(seed)
    topics = chance.normal(size=(5, dim)) + 0.5
    return unit((topics[chance.integers(5, size=rows)] + chance.normal(size=(rows, dim))).astype(np.float32))


def fitted(kind: str, new: Vectors, old: Vectors) -> Adapter:
    return fit(
        kind, new, old, new_space=space("new", new.shape[1]), old_space=space("old", old.shape[1]), seed=1
    )


@pytest.fixture(scope="module")
def sample() -> tuple[Vectors, Vectors]:
    """The same texts in 12 dimensions and, bent and noisy, in 8 of others."""
    new = texts(12, 3)
    chance = np.random.default_rng(4)
    bent = np.tanh(2 * new @ chance.normal(size=(12, 8))) + 0.05 * chance.normal(size=(ROWS, 8))
    return new, unit(bent.astype(np.float32))


@given(dim=st.integers(2, 24), seed=st.integers(0, 2**16))
@settings(deadline=None, max_examples=30)
def test_procrustes_recovers_a_rotation(dim: int, seed: int) -> None:
    new, turn = texts(dim, seed), rotation(dim, seed + 1)
    old = (new @ turn).astype(np.float32)
    unseen = texts(dim, seed + 2)
    adapted = fitted("procrustes", new, old).apply(unseen)
    assert np.allclose(adapted, unseen @ turn, atol=1e-4)


@pytest.mark.parametrize("kind", ["low_rank_affine", "residual_mlp"])
def test_a_rotation_is_nearly_recovered_by_the_kinds_that_could_do_more(kind: str) -> None:
    new, turn = texts(16, 0), rotation(16, 1)
    unseen = texts(16, 2)
    adapted = fitted(kind, new, (new @ turn).astype(np.float32)).apply(unseen)
    assert (adapted * (unseen @ turn)).sum(axis=1).min() > 0.99


def test_a_centred_rotation_keeps_what_sets_texts_apart() -> None:
    new, turn = texts(16, 0), rotation(16, 1)
    adapter = fitted("centred_procrustes", new, (new @ turn).astype(np.float32))
    unseen = texts(16, 2)
    wanted = unit(((unseen - new.mean(axis=0)) @ turn).astype(np.float32))
    assert np.allclose(adapter.apply(unseen), wanted, atol=1e-4)


@given(seed=st.integers(0, 2**16))
@settings(deadline=None, max_examples=20)
def test_procrustes_does_not_care_which_way_the_axes_of_the_new_space_point(seed: int) -> None:
    new, old, turn = texts(10, seed), texts(10, seed), rotation(10, seed)
    turned = (new @ turn).astype(np.float32)
    assert np.allclose(
        fitted("procrustes", turned, old).apply(turned), fitted("procrustes", new, old).apply(new), atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("new_dim", "old_dim"), [(12, 8), (8, 12), (10, 10)])
def test_adapted_rows_are_unit_rows_of_the_old_space(kind: str, new_dim: int, old_dim: int) -> None:
    adapted = fitted(kind, texts(new_dim, 1), texts(old_dim, 1)).apply(texts(new_dim, 2, rows=7))
    assert adapted.shape == (7, old_dim)
    assert adapted.dtype == np.float32
    assert np.allclose(np.linalg.norm(adapted, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["procrustes", "centred_procrustes", "low_rank_affine"])
def test_lengths_are_kept_where_the_old_space_has_them(kind: str) -> None:
    new = 3 * texts(6, 1)
    old = (2 * new @ rotation(6, 2)).astype(np.float32)
    new_space, old_space = space("new", 6, normalised=False), space("old", 6, normalised=False)
    adapter = fit(kind, new, old, new_space=new_space, old_space=old_space)
    assert np.allclose(adapter.apply(new), old, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_learns_the_same_adapter(kind: str, sample: tuple[Vectors, Vectors]) -> None:
    assert fitted(kind, *sample).dump() == fitted(kind, *sample).dump()


def test_the_network_comes_nearer_than_the_rotation_where_the_map_is_bent(
    sample: tuple[Vectors, Vectors],
) -> None:
    new, old = sample
    cosines = {k: (fitted(k, new, old).apply(new) * old).sum(axis=1).mean() for k in KINDS}
    assert cosines["residual_mlp"] > cosines["procrustes"]


# -- bytes and spaces ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_adapter_is_the_one_that_was_saved(kind: str, sample: tuple[Vectors, Vectors]) -> None:
    adapter = fitted(kind, *sample)
    loaded = Adapter.load(adapter.dump(), new_space=adapter.new_space, old_space=adapter.old_space)
    assert (loaded.kind, loaded.new_space, loaded.old_space) == (kind, adapter.new_space, adapter.old_space)
    assert np.array_equal(loaded.apply(sample[0]), adapter.apply(sample[0]))


def test_an_adapter_between_other_spaces_is_refused(sample: tuple[Vectors, Vectors]) -> None:
    adapter = fitted("procrustes", *sample)
    saved, new, old = adapter.dump(), adapter.new_space, adapter.old_space
    for other_new, other_old in (
        (replace(new, digest="other"), old),
        (new, replace(old, max_tokens=64)),
        (old, new),
    ):
        with pytest.raises(SpaceMismatch, match="new@"):
            Adapter.load(saved, new_space=other_new, old_space=other_old)


@given(place=st.integers(0, 2**16), flip=st.integers(1, 255))
@settings(deadline=None, max_examples=50)
def test_damaged_bytes_are_never_an_adapter(place: int, flip: int) -> None:
    adapter = fitted("procrustes", texts(4, 0), texts(4, 1))
    damaged = bytearray(adapter.dump())
    damaged[place % len(damaged)] ^= flip
    with pytest.raises(CorruptIndex):
        Adapter.load(bytes(damaged), new_space=adapter.new_space, old_space=adapter.old_space)


def test_cut_bytes_are_never_an_adapter() -> None:
    adapter = fitted("procrustes", texts(4, 0), texts(4, 1))
    for length in (0, 5, 11, 200):
        with pytest.raises(CorruptIndex):
            Adapter.load(adapter.dump()[:length], new_space=adapter.new_space, old_space=adapter.old_space)


# -- measuring and picking ---------------------------------------------------------------------


def test_a_rotation_is_measured_as_perfect() -> None:
    new = texts(16, 0)
    old = (new @ rotation(16, 1)).astype(np.float32)
    picked = pick(new, old, new_space=space("new", 16), old_space=space("old", 16))
    found = picked.measurement
    assert (found.kind, found.rows, found.recall, found.old_recall) == ("procrustes", ROWS // 5, 1.0, 1.0)
    assert found.cosine == pytest.approx(1)


def test_spaces_that_have_nothing_in_common_are_measured_as_such() -> None:
    picked = pick(texts(16, 0), texts(16, 99), new_space=space("new", 16), old_space=space("old", 16))
    assert picked.measurement.recall < 0.3


def test_the_picked_adapter_is_the_one_with_the_best_recall(sample: tuple[Vectors, Vectors]) -> None:
    picked = pick(*sample, new_space=space("new", 12), old_space=space("old", 8))
    assert picked.adapter.kind == picked.measurement.kind
    assert {picked.measurement.kind, *(other.kind for other in picked.others)} == set(KINDS)
    assert all(other.recall <= picked.measurement.recall for other in picked.others)


async def test_a_shorter_cut_and_a_prompt_of_the_default_model_are_bridged() -> None:
    asked = [f"{what} {where} {when}" for what in WHAT for where in WHERE for when in WHEN]
    whole, new = await embedded(asked)
    cut, old = await embedded(asked, max_tokens=8, query_prompt="search for: ")
    picked = pick(new, old, new_space=whole, old_space=cut)
    assert picked.measurement.recall > 0.6


async def embedded(asked: list[str], **options: Any) -> tuple[Space, Vectors]:
    embedder = await open_embedder("sentence_transformer", {"device": "cpu", "workers": 1, **options})
    try:
        return embedder.space, await embedder.embed_queries(asked)
    finally:
        await embedder.close()


WHAT = ["the price of bread", "a storm", "the fair", "a strike of pilots", "new trains", "an old map"]
WHERE = ["in the harbour", "on the island", "at the border", "near the mine", "in the capital"]
WHEN = ["last winter", "before the war", "this week", "in spring"]


# -- what is refused ------------------------------------------------------------------------


def spoiled(value: float) -> Vectors:
    vectors = texts(8, 1)
    vectors[3, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("new", "old", "field"),
    [
        (texts(7, 0), texts(8, 0), "new"),
        (texts(8, 0), texts(9, 0), "old"),
        (texts(8, 0)[0], texts(8, 0), "new"),
        (texts(8, 0), texts(8, 0, rows=ROWS - 1), "old"),
        (texts(8, 0, rows=MIN_ROWS - 1), texts(8, 0, rows=MIN_ROWS - 1), "new"),
        (spoiled(np.nan), texts(8, 0), "new"),
        (texts(8, 0), spoiled(np.inf), "old"),
    ],
)
def test_a_sample_that_cannot_teach_is_named(new: Vectors, old: Vectors, field: str) -> None:
    for learn in (
        lambda **spaces: fit("procrustes", new, old, **spaces),
        lambda **spaces: pick(new, old, **spaces),
    ):
        with pytest.raises(InvalidArgument) as caught:
            learn(new_space=space("new", 8), old_space=space("old", 8))
        assert [violation.field for violation in caught.value.violations] == [field]


def test_picking_needs_rows_to_hold_out() -> None:
    few = texts(8, 0, rows=MIN_SAMPLE - 1)
    with pytest.raises(InvalidArgument, match=f"at least {MIN_SAMPLE}"):
        pick(few, few, new_space=space("new", 8), old_space=space("old", 8))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(InvalidArgument, match="kind: 'magic'"):
        fitted("magic", texts(8, 0), texts(8, 0))


@pytest.mark.parametrize("wrong", [texts(9, 0), texts(8, 0)[0], spoiled(np.nan)])
def test_vectors_of_another_shape_are_not_adapted(wrong: Vectors) -> None:
    adapter = fitted("procrustes", texts(8, 0), texts(8, 1))
    with pytest.raises(InvalidArgument, match="vectors"):
        adapter.apply(wrong)


def test_zeros_stay_zeros() -> None:
    adapter = fitted("procrustes", texts(8, 0), texts(8, 1))
    assert not adapter.apply(np.zeros((1, 8), np.float32)).any()
