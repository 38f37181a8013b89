"""An ``Embedder`` over a transport: batches out, unit vectors of one model in, or a typed error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from embedders.base import Embedder, Space, Vectors
from embedders.remote.batches import batches, estimate
from embedders.remote.options import RemoteOptions
from embedders.remote.sending import Sender
from embedders.remote.tokenizer import load_tokenizer
from embedders.remote.transport import Transport
from ragstone.errors import BackendUnavailable, FailedPrecondition, Internal, InvalidArgument

_PROBES: Final = (
    "what is a lighthouse?",
    "A lighthouse is a tower with a bright light at its top.",
    "Der Leuchtturm steht an der Küste und weist nachts den Schiffen den Weg.",
)
_SAME: Final = 0.999
"""Other hardware and 16 bits keep the cosine of a text with itself above 0.9999; other weights do not."""
_LOOK_AGAIN_S: Final = 60.0
_INLINE_CHARS: Final = 4_000
"""Up to so many characters are tokenised on the event loop: quicker than a hop to a thread."""


async def open_remote(
    transport: Transport, describe: Callable[[], Awaitable[Space]], options: RemoteOptions
) -> Embedder:
    """An embedder over ``transport``, which is its own from now on; the server is asked for the dimension.

    ``describe`` may ask the server for its space, and raises what a transport does; the dimension and the
    prompts are filled in here. Raises InvalidArgument when the server takes no text
    with these options, FailedPrecondition when it refuses the caller, Overloaded and BackendUnavailable when
    it does not answer now.
    """
    sender = Sender(transport, options.send_limits)
    try:
        named = options.tokenizer
        tokenizer = await asyncio.to_thread(load_tokenizer, named) if named else None
        space = await sender.run(describe)
        probed = await _probe(sender, options)
        width = probed.shape[1]
        if options.dim is not None and options.dim > width:
            raise InvalidArgument.at("recipe.embedder.dim", f"the server's vectors have {width} numbers")
        whole = replace(
            space,
            dim=options.dim or width,
            query_prompt=options.query_prompt,
            passage_prompt=options.passage_prompt,
        )
        return RemoteEmbedder(sender, whole, options, probed=probed, tokenizer=tokenizer)
    except BaseException:
        await sender.close()
        raise


class RemoteEmbedder:
    """Texts to a server's vectors, made unit vectors of ``space`` and checked.

    The server's model may be exchanged while this runs. After every failure, and once a minute, the server
    embeds the texts again that it embedded first (``probed``); while their vectors differ it is not asked for
    others.
    """

    def __init__(
        self,
        sender: Sender,
        space: Space,
        options: RemoteOptions,
        *,
        probed: Vectors,
        tokenizer: Tokenizer | None,
    ) -> None:
        self._sender = sender
        self._space = space
        self._options = options
        self._probed = probed
        self._tokenizer = tokenizer
        self._trusted_until_s = time.monotonic() + _LOOK_AGAIN_S
        self._looking = asyncio.Lock()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def space(self) -> Space:
        """The space of every vector that this embedder makes."""
        return self._space

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that the recipe names; None where words are counted."""
        return self._tokenizer

    async def embed_queries(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``; before passages. Tenants do not take turns: the server batches.

        Raises InvalidArgument naming the ``texts[i]`` that the server refuses, Overloaded when it stays busy,
        BackendUnavailable when it does not answer or has another model now, Internal when it embeds other
        texts and fails on these.
        """
        return await self._accept(self._space.query_prompt, texts, bulk=False)

    async def embed_passages(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``; after queries. Raises the errors of ``embed_queries``."""
        return await self._accept(self._space.passage_prompt, texts, bulk=True)

    async def close(self) -> None:
        """Finish what was accepted, then close the connections."""
        self._closed = True
        await self._idle.wait()
        await self._sender.close()

    # -- a call -----------------------------------------------------------------------------------

    async def _accept(self, prompt: str, texts: Sequence[str], *, bulk: bool) -> Vectors:
        if self._closed:
            raise BackendUnavailable("the embedder is closed")
        self._calls += 1
        self._idle.clear()
        try:
            return await self._embed(prompt, texts, bulk=bulk)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _embed(self, prompt: str, texts: Sequence[str], *, bulk: bool) -> Vectors:
        # Most servers refuse the empty text; to a model's tokenizer a space is the same.
        prompted = [(prompt + text) or " " for text in texts]
        tokens = await self._count(prompted)
        out = np.empty((len(texts), self._space.dim), np.float32)
        parts = list(
            batches(tokens, max_texts=self._options.batch_texts, max_tokens=self._options.batch_tokens)
        )
        rest = iter(parts)

        async def work() -> None:
            for rows in rest:
                out[rows] = await self._rows(prompted, tokens, rows, bulk=bulk)

        await _all([work() for _ in range(min(len(parts), self._options.concurrency))])
        return out

    async def _count(self, texts: list[str]) -> list[int]:
        tokenizer = self._tokenizer
        if tokenizer is None:
            return list(map(estimate, texts))
        if sum(map(len, texts)) <= _INLINE_CHARS:
            return [len(encoding) for encoding in tokenizer.encode_batch_fast(texts)]
        return [len(e) for e in await asyncio.to_thread(tokenizer.encode_batch_fast, texts)]

    async def _rows(
        self, texts: Sequence[str], tokens: Sequence[int], rows: list[int], *, bulk: bool
    ) -> Vectors:
        """The vectors of ``rows`` of ``texts``. Servers say that a text was refused, not which: it is looked
        for by halves. A request that was only too large for the server goes through in halves, too."""
        try:
            return await self._ask([texts[i] for i in rows], sum(tokens[i] for i in rows), bulk=bulk)
        except InvalidArgument as exc:
            if len(rows) == 1:
                raise InvalidArgument.at(f"texts[{rows[0]}]", exc.message) from exc
        half = len(rows) // 2
        return np.concatenate(
            [await self._rows(texts, tokens, part, bulk=bulk) for part in (rows[:half], rows[half:])]
        )

    async def _ask(self, texts: Sequence[str], tokens: int, *, bulk: bool) -> Vectors:
        if time.monotonic() >= self._trusted_until_s:
            await self._look_again()
        try:
            vectors = await self._sender.send(texts, tokens=tokens, bulk=bulk)
            return _unit(_checked(vectors, len(texts), self._probed.shape[1])[:, : self._space.dim])
        except FailedPrecondition as exc:
            # It took the caller when this was opened. No text is to blame, and it may take the caller again.
            raise BackendUnavailable(exc.message) from exc
        except BackendUnavailable:
            self._trusted_until_s = float("-inf")
            raise
        except Internal as exc:
            # Is it the texts, or the server?
            self._trusted_until_s = float("-inf")
            await self._look_again(because=exc)
            raise

    # -- is it still the same model? ---------------------------------------------------------------

    async def _look_again(self, because: Internal | None = None) -> None:
        """Raise BackendUnavailable when the server fails on texts that it once embedded, or gives others'
        vectors."""
        async with self._looking:
            if time.monotonic() < self._trusted_until_s:
                return  # somebody else has just looked
            try:
                probed = await _probe(self._sender, self._options)
            except (Internal, InvalidArgument, FailedPrecondition) as exc:
                raise BackendUnavailable((because or exc).message) from exc
            if probed.shape != self._probed.shape:
                raise BackendUnavailable(
                    f"the embedding server gives vectors of {probed.shape[1]} numbers now, and gave "
                    f"{self._probed.shape[1]} before: put the model {self._space.name!r} back"
                )
            likeness = float((probed * self._probed).sum(axis=1).min())
            if likeness < _SAME:
                raise BackendUnavailable(
                    f"the embedding server gives other vectors than before (cosine {likeness:.3f}): "
                    f"put the model {self._space.name!r} back, or rebuild with another revision"
                )
            self._trusted_until_s = time.monotonic() + _LOOK_AGAIN_S


async def _probe(sender: Sender, options: RemoteOptions) -> Vectors:
    """Unit vectors ``(n, width)`` of a few fixed texts."""
    texts = _PROBES[: options.batch_texts]
    try:
        vectors = await sender.send(texts, tokens=sum(map(estimate, texts)), bulk=False)
    except InvalidArgument as exc:
        if exc.violations:
            raise
        raise InvalidArgument.at(
            "recipe.embedder", f"the server refuses short texts with these options: {exc.message}"
        ) from exc
    return _unit(_checked(vectors, len(texts), vectors.shape[-1]))


def _checked(vectors: Vectors, rows: int, width: int) -> Vectors:
    if vectors.shape != (rows, width):
        raise Internal(f"the embedding server gave shape {vectors.shape} for {rows} texts of {width} numbers")
    if not np.isfinite(vectors).all():
        raise Internal("the embedding server gave a vector that is not finite")
    return vectors


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise Internal("the embedding server gave a vector of length 0")
    unit: Vectors = (vectors / lengths).astype(np.float32, copy=False)
    return unit


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all side by side; the first failure ends the others and is raised."""
    if len(work) == 1:
        return await work[0]
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
