"""The model's side of a re-embedding job: the version's embedder on this machine, and what it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import embedders.registry
from embedders.base import Embedder, Vectors
from embedders.refusals import Embed, Outcome, embed_or_refuse
from ragstone.errors import Internal, SpaceMismatch
from retrieval.jobs.borrowing import patiently

_PROBE: Final = "a text that any model can embed"


async def open_embedder(space: str, options: Mapping[str, Any]) -> Embedder:
    """The embedder of a version's recipe, on this machine; ``options`` is that section of the recipe.

    Raises SpaceMismatch when its space is not the version's, and what the registry raises.
    """
    options = dict(options)
    embedder = await embedders.registry.open_embedder(str(options.pop("kind", "")), options)
    here = embedder.space.id
    if here != space:
        await embedder.close()
        raise SpaceMismatch(
            f"the version is of the space {space!r}, the model here of {here!r}: their weights differ",
            metadata={"version_space": space, "model_space": here},
        )
    return embedder


async def embed_slice(embedder: Embedder, texts: Sequence[str]) -> list[Outcome]:
    """What became of each text.

    Raises Internal when it is the model that fails, not the texts, and BackendUnavailable when it stays away.
    """

    async def embed(some: Sequence[str]) -> Vectors:
        return await patiently(lambda: embedder.embed_passages(some))

    outcomes = await embed_or_refuse(embed, texts)
    if all(isinstance(outcome, str) for outcome in outcomes):
        await _expect_health(embed)
    return outcomes


async def _expect_health(embed: Embed) -> None:
    """Raise Internal when the model embeds nothing at all: it would have all texts parked."""
    [outcome] = await embed_or_refuse(embed, [_PROBE])
    if isinstance(outcome, str):
        raise Internal(f"the model embeds nothing: {outcome}")
