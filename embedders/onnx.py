"""Any Sentence Transformers model that can be exported, by ONNX Runtime on the CPU.

A pass of the whole model runs outside the interpreter's lock, which it needs again only at its end.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as failures
from sentence_transformers import SentenceTransformer
from torch import Tensor

from embedders.base import Embedder
from embedders.forward import Forward, Pass, TokenIds, least_cosine, whole_model
from embedders.onnx_graphs import IDS, MASK, POOLED, TOKENS, GraphCache, export, graph_key, no_graph
from embedders.onnx_int8 import int8_is_exact, quantise
from embedders.options import parse_options
from embedders.sentence_transformer import ModelOptions, SentenceTransformerEmbedder, open_model
from embedders.weights import Weights, find_weights
from ragstone.errors import BackendUnavailable, InvalidArgument

_AGREEMENT: Final[Mapping[str, float]] = {"float32": 0.9999, "int8": 0.98}
"""The least cosine with the authors' own pass. Vectors in int8 are of another space: there it is a check."""
_FAILURES: Final = (
    failures.EPFail,
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
)
"""What a session raises; they have no base of their own."""


class Options(ModelOptions, frozen=True, extra="forbid"):
    """The recipe's ``embedder`` options; None leaves the choice to the model or the machine."""

    precision: Literal["auto", "float32", "int8"] = "auto"
    """``auto`` is float32: int8 has vectors of its own, another space, which no machine may choose alone."""


async def open_embedder(options: Mapping[str, Any]) -> Embedder:
    """Find, verify and load the model, export it where that was not done before, off the event loop.

    Raises InvalidArgument for wrong options, a model that does not fit or cannot be exported and a CPU that
    is not exact in int8; BackendUnavailable when the model is not there, CorruptIndex when its weights are
    damaged.
    """
    parsed = parse_options(Options, options)
    return await asyncio.to_thread(_load, parsed)


def _load(options: Options) -> SentenceTransformerEmbedder:
    precision = "int8" if options.precision == "int8" else "float32"
    if precision == "int8" and not int8_is_exact():
        raise _wrong_precision("this CPU is not exact in int8 (no VNNI): 'float32' works")
    weights = find_weights(options.model, options.revision)
    model = open_model(weights.path, "cpu")

    def forward(model: SentenceTransformer, probes: Sequence[TokenIds], *, pad: int) -> Forward:
        return _verified(_open_graph(model, weights, precision), model, probes, pad, weights.name, precision)

    shown = weights if precision == "float32" else _quantised(weights)
    return SentenceTransformerEmbedder(model, shown, options, forward)


def _quantised(weights: Weights) -> Weights:
    """Weights in int8 are others, and so is their space."""
    return replace(weights, digest=hashlib.sha256(f"{weights.digest} int8 by token".encode()).hexdigest())


def _open_graph(model: SentenceTransformer, weights: Weights, precision: str) -> Forward:
    cache = GraphCache()

    def exported() -> bytes:
        return cache.get(graph_key(weights, "float32"), lambda: export(model, weights.name))

    def in_int8() -> bytes:
        graph, products = quantise(exported())
        if not products:
            raise _wrong_precision(f"{weights.name} has no products that int8 fits: 'float32' works")
        return graph

    graph = exported() if precision == "float32" else cache.get(graph_key(weights, precision), in_int8)
    try:
        return _session_forward(graph)
    except _FAILURES as exc:
        raise no_graph(weights.name, str(exc)) from exc


def _session_forward(graph: bytes) -> Forward:
    options = onnxruntime.SessionOptions()
    # As many calls at once as there are workers, each on its own thread: see ``sentence_transformer``.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # A plan of the memory for every shape that was ever seen would grow for ever.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def forward(ids: Tensor, mask: Tensor | None) -> Pass:
        given = ids.numpy()
        attended = np.ones_like(given) if mask is None else mask.numpy().astype(np.int64)
        try:
            pooled, tokens = session.run([POOLED, TOKENS], {IDS: given, MASK: attended})
        except _FAILURES as exc:
            raise BackendUnavailable(f"ONNX Runtime failed: {exc}") from exc
        return Pass(torch.from_numpy(pooled), torch.from_numpy(tokens))

    return forward


def _verified(
    forward: Forward,
    model: SentenceTransformer,
    probes: Sequence[TokenIds],
    pad: int,
    name: str,
    precision: str,
) -> Forward:
    """``forward``, when it gives this model's vectors for ``probes``, together and alone."""
    plain, least = whole_model(model), _AGREEMENT[precision]
    batches: Iterator[Sequence[TokenIds]] = iter([probes, *([probe] for probe in probes)])
    found = min(least_cosine(forward, plain, batch, pad, model.device) for batch in batches)
    if not found >= least:
        raise no_graph(name, f"cosine {found:.4f} with the model's own vectors, less than {least}")
    return forward


def _wrong_precision(description: str) -> InvalidArgument:
    return InvalidArgument.at("recipe.embedder.precision", description)
