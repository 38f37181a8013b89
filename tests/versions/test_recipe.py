"""Recipes: defaults filled in, mistakes named by their path."""

import pytest

from ragstone.errors import InvalidArgument
from ragstone.types import Fusion, Recipe
from retrieval.versions.recipe import FusionSpec, PinnedRecipe, change, fusion_of, pin


def test_an_empty_recipe_takes_ragstones_defaults() -> None:
    pinned = pin(Recipe(), {})
    assert (pinned.embedder.kind, pinned.index.kind, pinned.lexical.kind) == (
        "sentence_transformer",
        "hnsw",
        "tantivy",
    )


def test_the_servers_defaults_come_before_ragstones() -> None:
    assert pin(Recipe(), {"index": {"kind": "flat"}}).index.kind == "flat"


def test_another_kind_takes_none_of_the_default_kinds_options() -> None:
    pinned = pin(Recipe(index={"kind": "flat"}), {"index": {"kind": "hnsw", "m": 48}})
    assert pinned.index.options == {}


def test_the_options_of_a_back_end_are_kept_for_it() -> None:
    assert pin(Recipe(index={"kind": "hnsw", "m": 48}), {}).index.options == {"m": 48}


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        (Recipe(chunker={"max_tokens": 3}), "recipe.chunker.max_tokens"),
        (Recipe(chunker={"size": 3}), "recipe.chunker.size"),
        (Recipe(chunker={"max_tokens": 64, "overlap_tokens": 60}), "recipe.chunker"),
        (Recipe(fusion={"kind": "magic"}), "recipe.fusion.kind"),
        (Recipe(index={"metric": "hamming"}), "recipe.index.metric"),
        (Recipe(reranker={"kind": "cross_encoder", "weight": 2}), "recipe.reranker.weight"),
        (Recipe(reranker={"model": "m"}), "recipe.reranker"),
    ],
)
def test_a_mistake_is_named_by_its_path(recipe: Recipe, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        pin(recipe, {})
    assert [v.field for v in caught.value.violations] == [field]


def test_a_model_with_token_vectors_keeps_them_and_reranks_by_them_by_default() -> None:
    pinned = pin(Recipe(), {})
    assert (pinned.tokens.kind, pinned.reranker.kind, pinned.reranker.weight) == (
        "lmdb",
        "late_interaction",
        0.7,
    )
    assert pinned.reranker.languages == ("en",)
    assert pin(Recipe(embedder={"model": "intfloat/e5-small"}), {}).reranker.languages is None


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(tokens={"kind": "none"}),
        Recipe(embedder={"kind": "hashing"}),
        Recipe(embedder={"kind": "precomputed", "space": "mine", "dim": 8}),
    ],
)
def test_without_token_vectors_nothing_is_reranked_by_default(recipe: Recipe) -> None:
    pinned = pin(recipe, {})
    assert (pinned.tokens.kind, pinned.reranker.kind) == ("none", "none")


def test_a_change_of_the_embedder_decides_anew_what_is_done_with_tokens() -> None:
    serving = pin(Recipe(), {})
    changed = change(serving, Recipe(embedder={"kind": "hashing"}))
    assert (changed.tokens.kind, changed.reranker.kind) == ("none", "none")
    again = change(serving, Recipe(embedder={"kind": "sentence_transformer", "dim": 256}))
    assert (again.tokens.kind, again.reranker.kind) == ("lmdb", "late_interaction")


def test_a_recipe_survives_the_catalog() -> None:
    pinned = pin(Recipe(index={"kind": "hnsw", "m": 48}, fusion={"kind": "rrf"}), {})
    assert PinnedRecipe.load(pinned.dump()) == pinned


def test_a_querys_fusion_replaces_the_recipes() -> None:
    assert fusion_of(FusionSpec(), Fusion(kind="rrf", k=10)).k == 10


def test_a_wrong_fusion_in_a_query_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        fusion_of(FusionSpec(), Fusion(dense_weight=-1))
    assert caught.value.violations[0].field == "fusion.dense_weight"
