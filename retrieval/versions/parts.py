"""What a version is made of, and who opens it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import structlog

from embedders.base import Embedder, TokenEncoder
from indexes.base import Compactable, Copyable, LexicalIndex, Metric, TokenIndex, VectorIndex
from indexes.directory import LocalDirectory
from indexes.metadata import MetadataIndex
from ragstone.errors import CorruptIndex, InvalidArgument
from rerankers.base import Reranker
from retrieval.store.values import ChunkDraft
from retrieval.versions.recipe import NONE, Backend, EmbedderSpec, PinnedRecipe, RerankerSpec

Index: TypeAlias = VectorIndex | LexicalIndex | TokenIndex
IndexT = TypeVar("IndexT", bound=Index)
log = structlog.get_logger(__name__)


class Cutter(Protocol):
    """Cuts documents into the chunks of one version."""

    def cut(self, document_id: str, title: str, text: str) -> Sequence[ChunkDraft]:
        """The chunks of a document, in their order. Pure, but slow: call it on a thread."""
        ...


@dataclass(frozen=True, slots=True)
class Home:
    """Where indexes live: a folder of their own, and a name of their own in stores that others share."""

    path: Path
    name: str

    def of(self, leg: str) -> Home:
        """That of one leg's index."""
        return Home(self.path / leg, f"{self.name}_{leg}")


class Opener(Protocol):
    """Opens back ends by the kinds that a recipe names. ``retrieval.wiring`` has the only implementation."""

    async def embedder(self, spec: EmbedderSpec) -> Embedder:
        """The embedder of a spec; equal specs share one."""
        ...

    async def reranker(self, spec: RerankerSpec, embedder: Embedder) -> Reranker | None:
        """The reranker of a spec, None for kind ``none``; specs of equal options share one.

        ``embedder`` is the version's own: late interaction is by its tokens.
        """
        ...

    async def dense(
        self, kind: str, *, home: Home, dim: int, metric: Metric, options: Mapping[str, object]
    ) -> VectorIndex:
        """The dense index that lives there."""
        ...

    def cutter(self, recipe: PinnedRecipe, embedder: Embedder, chunking: str) -> Cutter:
        """What cuts for a recipe; ``chunking`` is its fingerprint."""
        ...

    async def lexical(self, kind: str, *, home: Home, options: Mapping[str, object]) -> LexicalIndex:
        """The lexical index that lives there."""
        ...

    async def tokens(self, kind: str, *, home: Home, dim: int, options: Mapping[str, object]) -> TokenIndex:
        """The token index that lives there."""
        ...

    def is_shared(self, kind: str) -> bool:
        """Whether indexes of that kind are in a store that others share, and not in their folder."""
        ...

    async def drop_shared(self, kind: str, *, name: str, options: Mapping[str, object]) -> None:
        """Remove an index from a store that others share; one that is not there is no error.

        Raises BackendUnavailable when the store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The open parts of one version. Its models belong to the opener; the indexes to this version.

    ``cutter`` is None where clients bring vectors: then only the writer knows what a chunk is. ``tokens`` is
    None where the recipe keeps no token vectors; else the embedder is a ``TokenEncoder``. ``reranker`` is
    None where the recipe names none.
    """

    recipe: PinnedRecipe
    embedder: Embedder
    cutter: Cutter | None
    dense: VectorIndex
    lexical: LexicalIndex
    tokens: TokenIndex | None
    metadata: MetadataIndex
    reranker: Reranker | None

    @property
    def applied_seq(self) -> int:
        """The last journal position that all indexes have applied."""
        return min(index.applied_seq for index in self._followers)

    @property
    def damage(self) -> str:
        """What is wrong with the files of an index; empty while nothing is known."""
        return next((damage for index in self._followers if (damage := index.stats().damage)), "")

    async def checkpoint(self) -> int:
        """Make the indexes durable; the journal position from which they would need it again."""
        return min([await index.checkpoint() for index in self._followers])

    async def compact(self) -> None:
        """Merge segments now, in the indexes that have any."""
        for index in (self.dense, self.lexical):
            if isinstance(index, Compactable):
                await index.compact()

    async def close(self) -> None:
        """Close the indexes."""
        for index in self._followers:
            await index.close()

    @property
    def _followers(self) -> tuple[Index, ...]:
        both = self.dense, self.lexical
        return both if self.tokens is None else (*both, self.tokens)


async def open_parts(
    opener: Opener,
    recipe: PinnedRecipe,
    chunking: str,
    home: Home,
    *,
    tokens_like: TokenIndex | None = None,
    pruned_seq: int = 0,
) -> Parts:
    """Open every part that ``recipe`` names, the indexes in their ``home``.

    A new index of tokens begins as a copy of ``tokens_like``, where that is given: no text is encoded twice.

    An index whose files are damaged is begun anew: the journal has all that it held. So is one that stands
    before ``pruned_seq``: the journal does not know any more what it has to forget. Raises InvalidArgument
    naming ``recipe.<section>.<key>`` for options that a back end refuses.
    """
    embedder = await opener.embedder(recipe.embedder)
    reranker = await opener.reranker(recipe.reranker, embedder)
    brought = recipe.embedder.kind == "precomputed"
    # A model's tokenizer takes a while to copy.
    cutter = None if brought else await asyncio.to_thread(opener.cutter, recipe, embedder, chunking)
    index, words, kept = recipe.index, recipe.lexical, recipe.tokens

    async def open_dense() -> VectorIndex:
        return await opener.dense(
            index.kind,
            home=home.of("dense"),
            dim=embedder.space.dim,
            metric=index.metric,
            options=index.options,
        )

    async def open_lexical() -> LexicalIndex:
        return await opener.lexical(words.kind, home=home.of("lexical"), options=words.options)

    async def open_tokens() -> TokenIndex:
        return await opener.tokens(
            kept.kind,
            home=home.of("tokens"),
            dim=token_encoder(embedder, "tokens").token_dim,
            options=kept.options,
        )

    async with AsyncExitStack() as opened:
        dense = await _open_or_begin_anew(open_dense, opener, home.of("dense"), index, pruned_seq)
        opened.push_async_callback(dense.close)
        lexical = await _open_or_begin_anew(open_lexical, opener, home.of("lexical"), words, pruned_seq)
        opened.push_async_callback(lexical.close)
        tokens = None
        if kept.kind != NONE:
            path = home.of("tokens").path
            if isinstance(tokens_like, Copyable) and not path.exists():
                await tokens_like.copy_to(LocalDirectory(path))
            tokens = await _open_or_begin_anew(open_tokens, opener, home.of("tokens"), kept, pruned_seq)
        opened.pop_all()
    return Parts(
        recipe=recipe,
        embedder=embedder,
        cutter=cutter,
        dense=dense,
        lexical=lexical,
        tokens=tokens,
        metadata=MetadataIndex(),
        reranker=reranker,
    )


def token_encoder(embedder: Embedder, section: str) -> TokenEncoder:
    """The embedder, as what a section of the recipe needs it to be. Raises InvalidArgument naming that."""
    if not isinstance(embedder, TokenEncoder):
        raise InvalidArgument.at(
            f"recipe.{section}.kind",
            f"cannot be that: the embedder of {embedder.space.id!r} gives no token vectors",
        )
    return embedder


async def remove_index(opener: Opener, home: Home, index: Backend) -> None:
    """Remove all that a closed index holds, in its folder and elsewhere.

    Raises BackendUnavailable when the store does not answer that has it.
    """
    await asyncio.to_thread(shutil.rmtree, home.path, ignore_errors=True)
    if opener.is_shared(index.kind):
        await opener.drop_shared(index.kind, name=home.name, options=index.options)


async def _open_or_begin_anew(
    open_index: Callable[[], Awaitable[IndexT]],
    opener: Opener,
    home: Home,
    spec: Backend,
    pruned_seq: int,
) -> IndexT:
    try:
        index = await open_index()
    except CorruptIndex as exc:
        log.error("index_damaged", index=home.name, reason=exc.message, action="rebuild from the journal")
    else:
        if not 0 < index.applied_seq < pruned_seq:
            return index
        log.warning("index_outdated", index=home.name, seq=index.applied_seq, pruned_seq=pruned_seq)
        await index.close()
    await remove_index(opener, home, spec)
    return await open_index()
