"""Forward passes of a Sentence Transformers model: the quickest that gives the model's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import Tensor, nn

from embedders.base import Vectors
from embedders.packed_bert import PackedBert, bfloat16_is_native, compiled, pack_linears, packing_available
from ragstone.errors import InvalidArgument

TokenIds = NDArray[np.int64]


class Pass(NamedTuple):
    """What a forward pass gives."""

    pooled: Tensor
    """``(n, dim)``."""
    tokens: Tensor
    """``(n, length, width)``; those of padding mean nothing."""


Forward = Callable[[Tensor, Tensor | None], Pass]
"""Int64 ids ``(n, length)`` and a bool mask (None: no padding)."""
Precision = Literal["auto", "float32", "bfloat16"]

_AGREEMENT: Final = {torch.float32: 0.99999, torch.bfloat16: 0.9999}
"""The least cosine with the authors' own pass in float32, by the dtype of the products."""
_SHORTEST: Final = np.float32(1e-12)
"""A vector of length 0 stays one."""


def run_batch(forward: Forward, batch: Sequence[TokenIds], pad: int, device: torch.device) -> Pass:
    """One pass over ``batch``, padded to its longest."""
    lengths = [len(ids) for ids in batch]
    longest = max(lengths)
    padded = np.full((len(batch), longest), pad, np.int64)
    for row, ids in zip(padded, batch, strict=True):
        row[: len(ids)] = ids
    mask = None
    if min(lengths) < longest:
        mask = torch.from_numpy(np.arange(longest) < np.array(lengths)[:, None]).to(device)
    return forward(torch.from_numpy(padded).to(device), mask)


def unit(vectors: Tensor) -> Vectors:
    """``vectors`` float32 with rows of length 1, on the CPU."""
    rows: Vectors = vectors.float().cpu().numpy()
    # By NumPy: each operator of PyTorch would wait for the interpreter's lock again.
    normalised: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _SHORTEST)
    return normalised


def fastest(
    model: SentenceTransformer, probes: Sequence[TokenIds], *, pad: int, precision: Precision
) -> Forward:
    """The quickest forward pass that gives this model's own vectors, for ``probes`` at least.

    Packed weights reach operators of PyTorch that carry no promise between versions, hence the comparison.
    Raises InvalidArgument where bfloat16 is asked for and is not to be had.
    """
    plain = whole_model(model)
    with torch.inference_mode():
        for dtype in _dtypes(model.device, precision):
            for build in _candidates(model, dtype):
                forward = _agreeing(build, plain, probes, pad, model.device, _AGREEMENT[dtype])
                if forward is not None:
                    return forward
    if precision == "bfloat16":
        why = f"no pass in bfloat16 gives this model's vectors (cosine {_AGREEMENT[torch.bfloat16]}) here"
        raise InvalidArgument.at("recipe.embedder.precision", f"{why}; 'auto' and 'float32' work")
    return plain


def first_of(forward: Forward, dim: int) -> Forward:
    """The first ``dim`` numbers of each text's vector."""

    def cut(ids: Tensor, mask: Tensor | None) -> Pass:
        whole = forward(ids, mask)
        return whole._replace(pooled=whole.pooled[:, :dim])

    return cut


def _dtypes(device: torch.device, precision: Precision) -> tuple[torch.dtype, ...]:
    """Those to try, the fastest first."""
    if precision != "auto":
        return (torch.bfloat16,) if precision == "bfloat16" else (torch.float32,)
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else bfloat16_is_native()
    return (torch.bfloat16, torch.float32) if native else (torch.float32,)


def _candidates(model: SentenceTransformer, dtype: torch.dtype) -> Iterator[Callable[[], Forward]]:
    """How to build passes faster than the plain one that may fit this model, the fastest first."""
    if model.device.type == "cpu" and packing_available():
        bert = _bert_of(model)
        if bert is not None:
            yield lambda: _mean_pooled(compiled(PackedBert(bert, dtype)))
        yield lambda: whole_model(_packed(model, dtype))
    elif dtype != torch.float32:
        yield lambda: whole_model(deepcopy(model).to(dtype))


def _packed(model: SentenceTransformer, dtype: torch.dtype) -> SentenceTransformer:
    packed = deepcopy(model).to(dtype)
    pack_linears(packed)
    return packed


def _agreeing(
    build: Callable[[], Forward],
    plain: Forward,
    probes: Sequence[TokenIds],
    pad: int,
    device: torch.device,
    least: float,
) -> Forward | None:
    """The pass, if this CPU can do it and the model does not read its layers' weights itself."""
    try:
        forward = build()
        return forward if least_cosine(forward, plain, probes, pad, device) >= least else None
    except (RuntimeError, AttributeError):
        return None


def least_cosine(
    forward: Forward, other: Forward, batch: Sequence[TokenIds], pad: int, device: torch.device
) -> float:
    """How far the vectors of two passes agree: that of the text on which they differ most."""
    with torch.inference_mode():
        a, b = (unit(run_batch(each, batch, pad, device).pooled) for each in (forward, other))
    return float((a * b).sum(axis=1).min())


def whole_model(model: SentenceTransformer) -> Forward:
    """The model as its authors wrote it, all modules in turn."""

    def forward(ids: Tensor, mask: Tensor | None) -> Pass:
        attention = torch.ones_like(ids) if mask is None else mask.long()
        features = model({"input_ids": ids, "attention_mask": attention})
        return Pass(features["sentence_embedding"], features["token_embeddings"])

    return forward


def _mean_pooled(bert: nn.Module) -> Forward:
    def forward(ids: Tensor, mask: Tensor | None) -> Pass:
        return Pass(*bert(ids, mask))

    return forward


def _bert_of(model: SentenceTransformer) -> Any | None:
    """The BERT of a model that is nothing but BERT, mean pooling and normalisation."""
    modules = list(model)
    kinds = [type(module) for module in modules]
    if kinds not in ([Transformer, Pooling], [Transformer, Pooling, Normalize]) or pooling(model) != "mean":
        return None
    bert = modules[0].auto_model
    return bert if PackedBert.fits(bert) else None


def pooling(model: SentenceTransformer) -> str:
    """How tokens become one vector, in the model's own word; empty where it does not say."""
    return next((str(m.pooling_mode) for m in model if isinstance(m, Pooling)), "")
