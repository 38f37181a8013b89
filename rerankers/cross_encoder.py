"""Any cross-encoder of Sentence Transformers, on this machine's CPU or GPU.

A cross-encoder reads a query and a passage together (Nogueira and Cho, "Passage Re-ranking with BERT", 2019):
it sees how the words of both meet, at the price of one forward pass a passage.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal, TypeVar, TypeVarTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sentence_transformers import CrossEncoder
from torch import Tensor
from transformers.utils import logging as transformers_logging

from ragstone.errors import BackendUnavailable, DeadlineExceeded, Internal, InvalidArgument
from rerankers.base import Reranker, Scores
from rerankers.batches import plan
from rerankers.models import find_model
from rerankers.options import parse_options

T = TypeVar("T")
P = TypeVarTuple("P")

_RATE_WEIGHT: Final = 0.2
"""Of a batch in the mean rate of a thread."""
_HOPE: Final = 1.05
"""By so much a rate is thought to be better each time that a batch was not begun because of it."""
_PROBE: Final = ("when did the harbour freeze?", "The harbour froze in January, and thawed in March. " * 8)
_PROBES: Final = 4


class Options(BaseModel, frozen=True, extra="forbid"):
    """The recipe's ``reranker`` options; None leaves the choice to the model or the machine."""

    model: str = Field(min_length=1)
    """A model id or a folder."""
    revision: str | None = None
    max_tokens: int | None = Field(None, ge=8, le=131_072)
    """Of query and passage together; the longer one of them is cut."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = Field(None, ge=1, le=256)
    """Threads that run the model, each on one core."""
    batch_tokens: int | None = Field(None, ge=16, le=1_048_576)


async def open_reranker(options: Mapping[str, Any]) -> Reranker:
    """Find and load the model, off the event loop.

    Raises InvalidArgument for wrong options or a model that is no cross-encoder of one score,
    BackendUnavailable when the model or the device is not there.
    """
    parsed = parse_options(Options, options)
    return await asyncio.to_thread(_load, parsed)


def _load(options: Options) -> CrossEncoderReranker:
    device = _device(options.device)
    path = find_model(options.model, options.revision)
    # OpenMP's threads spin at their barriers beside any busy neighbour: one thread a call, and as many calls
    # at once as there are cores.
    torch.set_num_threads(1)
    return CrossEncoderReranker(_open_model(path, device), options)


@dataclass(frozen=True, slots=True)
class _Call:
    """One ``score``: its tokenised pairs, and until when (on the monotonic clock) it may take."""

    features: Mapping[str, Tensor]
    scores: NDArray[np.float32]
    done: NDArray[np.bool_]
    end: float

    def features_of(self, batch: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The rows of a batch, without the columns that are padding in all of them."""
        rows = torch.tensor(batch)
        used = self.features["attention_mask"][rows].any(dim=0)
        return {name: values[rows][:, used].to(device) for name, values in self.features.items()}


class CrossEncoderReranker:
    """A ``Reranker`` over a loaded ``CrossEncoder``, batched by tokens.

    Calls share the model's threads batch by batch, so a long one holds a short one up by one batch.
    """

    def __init__(self, model: CrossEncoder, options: Options) -> None:
        _require_one_score(model)
        _set_max_tokens(model, options.max_tokens)
        on_cpu = model.device.type == "cpu"
        self._model = model
        self._workers = options.workers or (len(os.sched_getaffinity(0)) if on_cpu else 1)
        self._batch_tokens = options.batch_tokens or (1_024 if on_cpu else 16_384)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="rerank")
        self._tokenising = threading.Lock()
        self._tokens_per_s = 0.0
        self._closed = False
        self._measure()

    async def score(self, query: str, texts: Sequence[str], *, deadline_s: float | None) -> Scores:
        """Float32 ``(m,)``: as the model's own ``predict``, of as many of the first texts as fit."""
        end = float("inf") if deadline_s is None else monotonic() + deadline_s
        if not texts:
            return np.empty(0, np.float32)
        call = await self._on_a_thread(self._tokenise, query, texts, end)
        lengths = call.features["attention_mask"].sum(dim=1).tolist()
        group_tokens = 2 * self._workers * self._batch_tokens
        batches = iter(plan(lengths, batch_tokens=self._batch_tokens, group_tokens=group_tokens))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._score_batches(call, batches))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        m = len(texts) if call.done.all() else int(np.argmin(call.done))
        if not m:
            raise DeadlineExceeded(f"not one of {len(texts)} passages can be scored in {deadline_s:.3f} s")
        return call.scores[:m]

    async def close(self) -> None:
        """End the model's threads, after the batches that they are at."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    # -- the caller's side: the event loop -------------------------------------------------------

    async def _score_batches(self, call: _Call, batches: Iterator[list[int]]) -> None:
        """Work ``batches`` off, which the call's other tasks take from too, until the time runs out."""
        for batch in batches:
            if not await self._on_a_thread(self._score_batch, call, batch):
                return

    async def _on_a_thread(self, function: Callable[[*P], T], *arguments: *P) -> T:
        if self._closed:
            raise BackendUnavailable("the reranker is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    # -- the workers' side: threads ---------------------------------------------------------------

    def _tokenise(self, query: str, texts: Sequence[str], end: float) -> _Call:
        # Truncation and padding are mutable state of the tokenizer.
        with self._tokenising:
            found = self._model.preprocess([(query, text) for text in texts], prompt=_prompt(self._model))
        features = {name: values for name, values in found.items() if isinstance(values, Tensor)}
        n = len(texts)
        return _Call(features, np.zeros(n, np.float32), np.zeros(n, np.bool_), end)

    def _score_batch(self, call: _Call, batch: list[int]) -> bool:
        """Score a batch if that can be done in time; whether it could."""
        began = monotonic()
        features = call.features_of(batch, self._model.device)
        tokens = features["attention_mask"].numel()
        if began + tokens / self._tokens_per_s > call.end:
            # Only what runs is measured: one slow moment must not close the door for ever.
            self._tokens_per_s *= _HOPE
            return False
        call.scores[batch] = self._forward(features)
        call.done[batch] = True
        self._learn(tokens / max(monotonic() - began, 1e-6))
        return True

    def _forward(self, features: dict[str, Tensor]) -> NDArray[np.float32]:
        try:
            with torch.inference_mode():
                scores = self._model(features)["scores"].float()
                if self._model.activation_fn is not None:
                    scores = self._model.activation_fn(scores)
                row: NDArray[np.float32] = scores.reshape(-1).cpu().numpy()
        except RuntimeError as exc:
            raise BackendUnavailable(f"the reranking model failed: {exc}") from exc
        if not np.isfinite(row).all():
            raise Internal("the reranking model gave a score that is not finite")
        return row

    def _learn(self, tokens_per_s: float) -> None:
        self._tokens_per_s += _RATE_WEIGHT * (tokens_per_s - self._tokens_per_s)

    def _measure(self) -> None:
        """How fast a thread is, before anybody waits for it; the first pass also warms the model up."""
        query, text = _PROBE
        call = self._tokenise(query, [text] * _PROBES, float("inf"))
        features = call.features_of(range(_PROBES), self._model.device)
        for _ in range(2):
            began = monotonic()
            self._forward(features)
            self._tokens_per_s = features["attention_mask"].numel() / max(monotonic() - began, 1e-6)


# -- facts about a model -----------------------------------------------------------------------


def _open_model(path: Path, device: str) -> CrossEncoder:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # a log is no terminal
    try:
        model: CrossEncoder = CrossEncoder(
            str(path), device=device, local_files_only=True, model_kwargs={"dtype": torch.float32}
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as exc:
        raise _wrong_model(f"{path} is not a cross-encoder that loads: {exc}") from exc
    model.eval().requires_grad_(False)
    return model


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise BackendUnavailable("recipe.reranker.device is cuda, and PyTorch sees no CUDA device")
    return "cuda" if available and wanted != "cpu" else "cpu"


def _require_one_score(model: CrossEncoder) -> None:
    if model.num_labels != 1:
        raise _wrong_model(f"it gives {model.num_labels} numbers a pair, and a reranker gives one")


def _set_max_tokens(model: CrossEncoder, wanted: int | None) -> None:
    positions = getattr(model.config, "max_position_embeddings", None) or 131_072
    if wanted is not None and wanted > positions:
        raise InvalidArgument.at("recipe.reranker.max_tokens", f"the model has {positions} positions")
    model.max_seq_length = wanted or min(model.max_seq_length or positions, positions)


def _prompt(model: CrossEncoder) -> str | None:
    """What the model's authors put before each pair, if anything."""
    name = model.default_prompt_name
    return None if name is None else model.prompts.get(name)


def _wrong_model(description: str) -> InvalidArgument:
    return InvalidArgument.at("recipe.reranker.model", description)
