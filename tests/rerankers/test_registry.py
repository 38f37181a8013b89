"""Kinds by name."""

import pytest

from ragstone.errors import FailedPrecondition, InvalidArgument
from rerankers.registry import open_reranker


async def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidArgument, match="none, late_interaction, cross_encoder, rerank_http") as caught:
        await open_reranker("oracle", {})
    assert caught.value.violations[0].field == "recipe.reranker.kind"


@pytest.mark.parametrize("kind", ["cross_encoder", "rerank_http"])
async def test_unknown_options_are_named(kind: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_reranker(kind, {"flavour": "mint"})
    assert "recipe.reranker.flavour" in {violation.field for violation in caught.value.violations}


async def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankers.registry.BACKENDS", {"exotic": "not_installed.reranker:open_reranker"})
    with pytest.raises(FailedPrecondition, match="not_installed"):
        await open_reranker("exotic", {})
