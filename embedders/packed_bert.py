"""BERT's forward pass with oneDNN's packed weights: the same vectors in half the time or a third.

Measured on an AMD CPU with AVX-512, one thread, 384 x 1,536 weights, 256 rows: ``nn.Linear`` (MKL)
111 GFLOP/s, oneDNN with weights packed once 256 GFLOP/s. A layer's query, key and value are one product, GELU
and the residual sums ride on the products.

``compiled`` makes the pass one call. An operator called from Python needs the interpreter's lock again at its
end, and a thread that computes in Python gives it up every 5 ms: with some hundred operators a query took a
second beside such a thread, and takes some 20 ms in one call.
"""

from __future__ import annotations

import warnings
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# Operators of PyTorch's own compiler: without a public name, and absent where PyTorch comes without oneDNN.
_PACK: Final[Any] = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_LINEAR: Final[Any] = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_ROWS_HINT: Final = 256
"""The number of rows that oneDNN lays the weights out for; any other number works too."""


def packing_available() -> bool:
    """Whether this build of PyTorch can pack weights."""
    return _PACK is not None and _LINEAR is not None


def bfloat16_is_native() -> bool:
    """Whether this CPU has instructions for bfloat16; elsewhere it is slower than float32."""
    able: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older builds of PyTorch do not tell
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


class PackedLinear(nn.Module):
    """``nn.Linear`` on the CPU, its weights packed once; ``activation`` is "none" or "gelu" (exact).

    Computes in the dtype of ``weight``; sums are float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, activation: str = "none") -> None:
        super().__init__()
        self._weight = _PACK(weight.detach().contiguous(), _ROWS_HINT)
        self._bias = None if bias is None else bias.detach().contiguous()
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        # By its whole name, which TorchScript can follow.
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 # it has no public one
            x, self._weight, self._bias, self._activation, [], "none"
        )
        return y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """``forward(x) + residual`` in one pass over memory."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 # as above
            x, residual, self._weight, self._bias, "add"
        )
        return y


def pack_linears(model: nn.Module) -> None:
    """Replace every ``nn.Linear`` inside ``model`` by its packed twin."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child.weight, child.bias))


class _Norm(nn.Module):
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self._weight = norm.weight.detach().to(dtype)
        self._bias = norm.bias.detach().to(dtype)
        self._eps: float = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.layer_norm(x, [x.size(-1)], self._weight, self._bias, self._eps)
        return y


class _Layer(nn.Module):
    """One of BERT's: attention and a feed-forward part, each with its residual sum and norm."""

    def __init__(self, layer: Any, heads: int, dtype: torch.dtype) -> None:
        super().__init__()
        own = layer.attention.self
        parts = (own.query, own.key, own.value)
        after, wide, narrow = layer.attention.output, layer.intermediate, layer.output

        def packed(weight: Tensor, bias: Tensor, activation: str = "none") -> PackedLinear:
            return PackedLinear(weight.to(dtype), bias.to(dtype), activation=activation)

        self._heads = heads
        self._qkv = packed(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))
        self._attended = packed(after.dense.weight, after.dense.bias)
        self._attended_norm = _Norm(after.LayerNorm, dtype)
        self._widened = packed(wide.dense.weight, wide.dense.bias, "gelu")
        self._narrowed = packed(narrow.dense.weight, narrow.dense.bias)
        self._norm = _Norm(narrow.LayerNorm, dtype)

    def forward(self, x: Tensor, n: int, length: int, kept: Tensor | None, attend: Tensor | None) -> Tensor:
        """``(rows, width)`` to the same."""
        rows, width = x.shape
        shape = (n, length, 3, self._heads, width // self._heads)
        heads = _spread(self._qkv(x), n * length, kept).view(shape).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=attend)
        mixed = mixed.transpose(1, 2).reshape(n * length, width)
        x = self._attended_norm(self._attended.plus(_gathered(mixed, rows, kept), x))
        y: Tensor = self._norm(self._narrowed.plus(self._widened(x), x))
        return y


class PackedBert(nn.Module):
    """A ``transformers.BertModel`` without dropout, cross-attention, pooler or second segment, and a mean.

    ``dtype`` is that of the products and of what flows between them.
    """

    def __init__(self, bert: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        embeddings = bert.embeddings
        first_segment = embeddings.token_type_embeddings.weight[0]
        self._dtype = dtype
        self._words = embeddings.word_embeddings.weight.detach()
        self._positions = (embeddings.position_embeddings.weight + first_segment).detach()
        self._norm = _Norm(embeddings.LayerNorm, torch.float32)
        heads: int = bert.config.num_attention_heads
        self._layers = nn.ModuleList(_Layer(layer, heads, dtype) for layer in bert.encoder.layer)

    @staticmethod
    def fits(bert: Any) -> bool:
        """Whether ``bert`` is an architecture that this class computes exactly."""
        config = getattr(bert, "config", None)
        return (
            type(bert).__name__ == "BertModel"
            and getattr(config, "hidden_act", None) == "gelu"
            and getattr(config, "position_embedding_type", "absolute") == "absolute"
            and not getattr(config, "is_decoder", False)
            and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in bert.parameters())
        )

    def forward(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means ``(n, width)`` and token vectors ``(n, length, width)`` of int64 ``ids`` ``(n, length)``.

        Float32. ``mask`` is bool ``(n, length)``, False on padding; None where there is no padding.
        """
        n, length = ids.shape
        kept = None if mask is None else mask.flatten().nonzero().squeeze(1)
        attend = None if mask is None else mask.unsqueeze(1).unsqueeze(1)
        x = functional.embedding(ids, self._words) + self._positions[:length]
        x = self._norm(x).to(self._dtype).flatten(0, 1)
        x = _gathered(x, _round_up(n * length if kept is None else kept.size(0)), kept)
        for layer in self._layers:
            x = layer(x, n, length, kept, attend)
        tokens = _spread(x, n * length, kept).view(n, length, -1).float()
        if mask is None:
            return tokens.mean(dim=1), tokens
        weight = mask.to(tokens.dtype).unsqueeze(-1)
        return (tokens * weight).sum(dim=1) / weight.sum(dim=1), tokens


def _gathered(x: Tensor, rows: int, kept: Tensor | None) -> Tensor:
    """The rows of ``x`` that are no padding, and zeros below: ``rows`` in all."""
    if kept is not None:
        x = x.index_select(0, kept)
    return functional.pad(x, [0, 0, 0, rows - x.size(0)])


def _spread(x: Tensor, rows: int, kept: Tensor | None) -> Tensor:
    """The ``rows`` that ``x`` was gathered from; zeros for padding."""
    if kept is None:
        return x[:rows]
    return x.new_zeros(rows, x.size(1)).index_copy_(0, kept, x[: kept.size(0)])


def _round_up(rows: int) -> int:
    """The next of few numbers of rows: oneDNN makes kernels for each, which takes longer than a query."""
    step = 16 if rows <= 64 else 64 if rows <= 512 else 128
    return (rows + step - 1) // step * step


def compiled(bert: PackedBert) -> nn.Module:
    """``bert`` as one call, outside the interpreter's lock; as it is where PyTorch has no TorchScript."""
    try:
        with warnings.catch_warnings():
            # Deprecated in favour of compilers that need a C++ compiler where the model runs.
            warnings.simplefilter("ignore", DeprecationWarning)
            return cast(nn.Module, torch.jit.freeze(torch.jit.script(bert.eval())))
    except (RuntimeError, AttributeError):
        return bert
