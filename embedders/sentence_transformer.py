"""Any Sentence Transformers model, on this machine's CPU or GPU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from embedders.base import Embedder, Encoded, Space, Vectors
from embedders.batching import Batcher, BatchLimits
from embedders.forward import Forward, Precision, TokenIds, fastest, first_of, pooling, run_batch, unit
from embedders.lengths import TooLong, measure, refuse
from embedders.options import parse_options
from embedders.weights import DEFAULT_MODEL, Weights, find_weights
from ragstone.errors import BackendUnavailable, Internal, InvalidArgument, RagstoneError

_INLINE_CHARS: Final = 4_000
"""Up to so many characters are tokenised on the event loop: quicker than a hop to a thread."""
_PROBES: Final = (
    "what is a lighthouse?",
    "A lighthouse is a tower with a bright light at its top.",
    "It stands on the coast, and guides ships at night, in fog and past rocks; " * 4,
)


class ModelOptions(BaseModel, frozen=True, extra="forbid"):
    """Of any kind that runs a model here; None leaves the choice to the model or the machine."""

    model: str = Field(DEFAULT_MODEL, min_length=1)
    """A model id or a folder."""
    revision: str | None = None
    dim: int | None = Field(None, ge=8, le=4096)
    """Only the first so many of each vector's numbers, for models trained to be cut there (Matryoshka
    representation learning, NeurIPS 2022); another space."""
    max_tokens: int | None = Field(None, ge=4, le=131_072)
    """The longest text that is read as a whole."""
    too_long: TooLong = "truncate"
    """Longer texts are cut there, and responses say so; or they are refused."""
    query_prompt: str | None = None
    passage_prompt: str | None = None
    workers: int | None = Field(None, ge=1, le=256)
    """Threads that run the model, each on one core."""
    batch_tokens: int | None = Field(None, ge=16, le=1_048_576)
    queue_tokens: int | None = Field(None, ge=16)
    """Of queries, and of passages, that may wait."""


class Options(ModelOptions, frozen=True, extra="forbid"):
    """The recipe's ``embedder`` options."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    """Of the products: bfloat16 where the machine is fast in it and the vectors agree, or as named."""


class Chooser(Protocol):
    """Chooses how a model's pass is computed."""

    def __call__(self, model: SentenceTransformer, probes: Sequence[TokenIds], *, pad: int) -> Forward:
        """A pass that gives this model's vectors, for ``probes`` at least; ``pad`` is the padding's id."""
        ...


async def open_embedder(options: Mapping[str, Any]) -> Embedder:
    """Find, verify and load the model, off the event loop.

    Raises InvalidArgument for wrong options or a model that does not fit, BackendUnavailable when the model
    or the device is not there, CorruptIndex when its weights are damaged.
    """
    parsed = parse_options(Options, options)
    return await asyncio.to_thread(_load, parsed)


def _load(options: Options) -> SentenceTransformerEmbedder:
    device = _device(options.device)
    weights = find_weights(options.model, options.revision)
    model = open_model(weights.path, device)
    return SentenceTransformerEmbedder(model, weights, options, partial(fastest, precision=options.precision))


class _Text(NamedTuple):
    ids: TokenIds
    tokens_too: bool


class _Row(NamedTuple):
    vector: Vectors
    ids: TokenIds
    tokens: Vectors | None


class SentenceTransformerEmbedder:
    """An ``Embedder`` and ``TokenEncoder`` over a loaded ``SentenceTransformer``, batched by tokens."""

    def __init__(
        self, model: SentenceTransformer, weights: Weights, options: ModelOptions, choose: Chooser
    ) -> None:
        backend = getattr(model.tokenizer, "_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise _wrong_model(f"{weights.name} has no fast tokenizer")
        self._tokenizer = _copy(backend)
        self._truncating = _copy(backend)
        max_tokens = _max_tokens(model, options.max_tokens)
        self._truncating.enable_truncation(max_tokens)
        self._too_long = options.too_long
        self._space = Space(
            name=weights.name,
            dim=_dim(model, options.dim),
            digest=weights.digest,
            pooling=pooling(model),
            query_prompt=_prompt(model, options.query_prompt, "query"),
            passage_prompt=_prompt(model, options.passage_prompt, "document", "passage"),
            max_tokens=max_tokens,
        )
        _refuse_unpooled_prompts(model, self._space)
        self._pad = int(getattr(model.tokenizer, "pad_token_id", None) or 0)
        self._device = model.device
        whole = choose(model, self._tokenise(list(_PROBES)), pad=self._pad)
        self._forward = first_of(whole, self._space.dim)
        self._token_dim = self._width()
        self._batcher: Batcher[_Text, _Row] = Batcher(self._run, limits=_limits(options, model))

    @property
    def space(self) -> Space:
        """The space of every vector that this embedder makes."""
        return self._space

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, without truncation or padding."""
        return self._tokenizer

    async def embed_queries(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``; before passages. Raises Overloaded, BackendUnavailable."""
        return await self._embed(self._space.query_prompt, texts, bulk=False, tenant=tenant)

    async def embed_passages(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``; waits for room in the queue. Raises BackendUnavailable."""
        return await self._embed(self._space.passage_prompt, texts, bulk=True, tenant=tenant)

    @property
    def token_dim(self) -> int:
        """The width of the model's last layer."""
        return self._token_dim

    async def encode_queries(self, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        """Vectors and token vectors of one pass; before passages. Raises Overloaded, BackendUnavailable."""
        return await self._encode(self._space.query_prompt, texts, bulk=False, tenant=tenant)

    async def encode_passages(self, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        """Vectors and token vectors of one pass; waits for room. Raises BackendUnavailable."""
        return await self._encode(self._space.passage_prompt, texts, bulk=True, tenant=tenant)

    async def close(self) -> None:
        """Finish what was accepted, then end the model's threads."""
        await self._batcher.close()

    async def _embed(self, prompt: str, texts: Sequence[str], *, bulk: bool, tenant: str) -> Vectors:
        rows = await self._rows(prompt, texts, bulk=bulk, tenant=tenant, tokens_too=False)
        return np.stack([row.vector for row in rows]) if rows else np.empty((0, self._space.dim), np.float32)

    async def _encode(self, prompt: str, texts: Sequence[str], *, bulk: bool, tenant: str) -> list[Encoded]:
        rows = await self._rows(prompt, texts, bulk=bulk, tenant=tenant, tokens_too=True)
        return [
            Encoded(vector=row.vector, tokens=row.tokens, ids=row.ids)
            for row in rows
            if row.tokens is not None
        ]

    async def _rows(
        self, prompt: str, texts: Sequence[str], *, bulk: bool, tenant: str, tokens_too: bool
    ) -> list[_Row]:
        prompted = [prompt + text for text in texts] if prompt else list(texts)
        if sum(map(len, prompted)) <= _INLINE_CHARS:
            ids = self._read(prompted)
        else:
            ids = await asyncio.to_thread(self._read, prompted)
        wanted = [_Text(one, tokens_too) for one in ids]
        return await self._batcher.submit(wanted, list(map(len, ids)), bulk=bulk, tenant=tenant)

    def _width(self) -> int:
        with torch.inference_mode():
            return run_batch(self._forward, self._tokenise([""]), self._pad, self._device).tokens.shape[-1]

    def _read(self, texts: list[str]) -> list[TokenIds]:
        if self._too_long == "error":
            refuse(measure(self._tokenizer, texts, limit=self._space.max_tokens))
        return self._tokenise(texts)

    def _tokenise(self, texts: list[str]) -> list[TokenIds]:
        if len(texts) == 1:
            return [np.array(self._truncating.encode(texts[0]).ids, np.int64)]
        return [np.array(e.ids, np.int64) for e in self._truncating.encode_batch_fast(texts)]

    def _run(self, batch: Sequence[_Text]) -> list[_Row | RagstoneError]:
        """One batch through the model; called by the batcher's threads."""
        try:
            with torch.inference_mode():
                done = run_batch(self._forward, [text.ids for text in batch], self._pad, self._device)
                vectors = unit(done.pooled)
                tokens = unit(done.tokens) if any(text.tokens_too for text in batch) else None
        except RuntimeError as exc:
            raise BackendUnavailable(f"the embedding model {self._space.name} failed: {exc}") from exc
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        return [
            _Row(
                vectors[i],
                text.ids,
                tokens[i, : len(text.ids)] if tokens is not None and text.tokens_too else None,
            )
            if finite[i]
            else Internal("the model returned a vector that is not finite")
            for i, text in enumerate(batch)
        ]


# -- facts about a model -----------------------------------------------------------------------


def open_model(path: Path, device: str) -> SentenceTransformer:
    """The model in ``path``, in float32; PyTorch computes on one thread a call from then on.

    Raises InvalidArgument where there is no model that loads.
    """
    # OpenMP's threads spin at their barriers; beside any busy neighbour (the event loop, a search) that makes
    # a model some thirty times slower. One thread a call, and as many calls at once as there are cores, is
    # as fast on an idle machine and stays so on a busy one.
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # a log is no terminal
    try:
        model = SentenceTransformer(
            str(path), device=device, local_files_only=True, model_kwargs={"torch_dtype": torch.float32}
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as exc:
        raise _wrong_model(f"{path} is not a Sentence Transformers model that loads: {exc}") from exc
    return model.eval().requires_grad_(False)


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise BackendUnavailable("recipe.embedder.device is cuda, and PyTorch sees no CUDA device")
    return "cuda" if available and wanted != "cpu" else "cpu"


def _limits(options: ModelOptions, model: SentenceTransformer) -> BatchLimits:
    """A CPU core does some 10,000 tokens a second: a bulk batch of 1,024 holds a query up for 0.1 s.

    Queries wait for a second at most: what cannot be served by then is refused at once, and told when to
    come back, instead of waiting for a deadline that it will miss.
    """
    on_cpu = model.device.type == "cpu"
    workers = options.workers or (len(os.sched_getaffinity(0)) if on_cpu else 1)
    tokens = options.batch_tokens or (1_024 if on_cpu else 16_384)
    queue = options.queue_tokens or (8 * 1_024 * workers if on_cpu else 16 * tokens)
    return BatchLimits(workers=workers, query_tokens=tokens, bulk_tokens=tokens, queue_tokens=queue)


def _max_tokens(model: SentenceTransformer, wanted: int | None) -> int:
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    positions = getattr(config, "max_position_embeddings", None) or 131_072
    if wanted is not None and wanted > positions:
        raise InvalidArgument.at("recipe.embedder.max_tokens", f"the model has {positions} positions")
    return int(wanted or min(model.max_seq_length or positions, positions))


def _dim(model: SentenceTransformer, wanted: int | None) -> int:
    dim = model.get_embedding_dimension()
    if not dim:
        raise _wrong_model("the model does not tell its dimension")
    if wanted is not None and wanted > dim:
        raise InvalidArgument.at("recipe.embedder.dim", f"the model's vectors have {dim} numbers")
    return int(wanted or dim)


def _prompt(model: SentenceTransformer, wanted: str | None, *names: str) -> str:
    """The prompt asked for, or the model's own first one of ``names``."""
    if wanted is not None:
        return wanted
    return next((prompt for name in names if (prompt := model.prompts.get(name))), "")


def _refuse_unpooled_prompts(model: SentenceTransformer, space: Space) -> None:
    included = all(getattr(m, "include_prompt", True) for m in model)
    if not included and (space.query_prompt or space.passage_prompt):
        raise _wrong_model(f"{space.name} leaves prompts out of its pooling: not supported")


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer of our own: truncation and padding are mutable state of the model's."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _wrong_model(description: str) -> InvalidArgument:
    return InvalidArgument.at("recipe.embedder.model", description)
