"""Documents into the chunks of one version. Pure but for the tokenizer."""

from __future__ import annotations

from embedders.base import Embedder
from retrieval.ingest.chunking import Chunker, chunk_id, context_window
from retrieval.store.values import ChunkDraft
from retrieval.versions.passages import passage_text, text_hash
from retrieval.versions.recipe import PinnedRecipe


class PassageCutter:
    """Cuts as a version's recipe says; ``chunking`` is its fingerprint."""

    def __init__(self, recipe: PinnedRecipe, embedder: Embedder, chunking: str) -> None:
        self._chunking = chunking
        self._context_chars = recipe.lexical.context_chars
        self._chunker = Chunker(
            max_tokens=min(recipe.chunker.max_tokens, embedder.space.max_tokens or recipe.chunker.max_tokens),
            overlap_tokens=recipe.chunker.overlap_tokens,
            tokenizer=embedder.tokenizer,
        )

    def cut(self, document_id: str, title: str, text: str) -> list[ChunkDraft]:
        """The chunks of a document, in their order, without vectors."""
        spans = self._chunker.split(text, title)
        return [
            self._chunk(document_id, title, text, n, span.start, span.end) for n, span in enumerate(spans)
        ]

    def _chunk(
        self, document_id: str, title: str, text: str, ordinal: int, start: int, end: int
    ) -> ChunkDraft:
        passage = text[start:end]
        context_start, context_end = context_window(text, start, end, chars=self._context_chars)
        return ChunkDraft(
            chunk_id=chunk_id(document_id, ordinal, passage, self._chunking),
            ordinal=ordinal,
            start=start,
            end=end,
            context_start=context_start,
            context_end=context_end,
            text=passage,
            text_hash=text_hash(passage_text(title, passage)),
        )
