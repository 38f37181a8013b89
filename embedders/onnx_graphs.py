"""Models as ONNX graphs: exported once from their weights, quantised where asked, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import structlog
import torch
from platformdirs import user_cache_path
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.export import Dim

from embedders.weights import Weights
from ragstone.errors import InvalidArgument

log = structlog.get_logger(__name__)

IDS: Final = "ids"
MASK: Final = "mask"
POOLED: Final = "pooled"
TOKENS: Final = "tokens"
"""The graph's inputs, int64 ``(n, length)``; its outputs, float32 ``(n, dim)``, ``(n, length, width)``."""

_OPSET: Final = 23
"""The first with attention as one operator."""
_FORMAT: Final = 1
"""Of a kept graph: counts up when the export or the quantiser changes."""
_MAKERS: Final = ("onnx", "onnxscript", "sentence-transformers", "torch", "transformers")
_LARGEST: Final = 2**31 - 2**24
"""Bytes of weights. A protobuf message, which a graph in one file is, ends at 2 GiB."""


class GraphCache:
    """Files of graphs by key. A name ends with the digest of what is in the file, so damage is found."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or user_cache_path("ragstone") / "onnx"

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The graph of ``key``; made when it is not there or damaged."""
        for file in self._folder.glob(f"{key}.*.onnx"):
            with suppress(OSError):
                graph = file.read_bytes()
                if file.name == _name(key, graph):
                    return graph
                file.unlink()
        graph = make()
        try:
            self._put(_name(key, graph), graph)
        except OSError as exc:
            log.warning("onnx_graph_not_kept", folder=str(self._folder), error=str(exc))
        return graph

    def _put(self, name: str, graph: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Aside, then renamed: another process that starts meanwhile sees all of it or nothing.
        with NamedTemporaryFile(dir=self._folder, suffix=".tmp", delete=False) as file:
            try:
                file.write(graph)
                file.close()
                Path(file.name).replace(self._folder / name)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def graph_key(weights: Weights, precision: str) -> str:
    """What a graph is made of: weights, the model's settings, the packages that made it, the precision."""
    settings = hashlib.sha256()
    for file in sorted(weights.path.rglob("*.json")):
        settings.update(f"{file.relative_to(weights.path).as_posix()}\0".encode() + file.read_bytes())
    made_of = {
        "weights": weights.digest,
        "settings": settings.hexdigest(),
        "makers": {name: version(name) for name in _MAKERS},
        "format": _FORMAT,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]


def export(model: SentenceTransformer, name: str) -> bytes:
    """The whole model, pooling and all, as a graph in float32; ``name`` is for messages.

    Some seconds. Raises InvalidArgument for a model that cannot be exported.
    """
    if sum(p.numel() * p.element_size() for p in model.parameters()) > _LARGEST:
        raise no_graph(name, "its weights are over 2 GiB")
    ids = torch.randint(1, 100, (2, 8))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    # The exporter reports its progress as warnings and log lines, which a server's log has no use for.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Whole(model),
                (ids, mask),
                input_names=[IDS, MASK],
                output_names=[POOLED, TOKENS],
                dynamic_shapes=(free, free),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        graph: bytes = program.model_proto.SerializeToString()
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as exc:
        raise no_graph(name, f"{type(exc).__name__}: {str(exc).strip().partition(os.linesep)[0]}") from exc
    return graph


def no_graph(name: str, why: str) -> InvalidArgument:
    """What a user reads of a model that ONNX Runtime cannot run."""
    return InvalidArgument.at(
        "recipe.embedder.model", f"{name} does not run in ONNX ({why}); kind 'sentence_transformer' runs it"
    )


class _Whole(nn.Module):
    """A model's own modules in turn, with tensors for arguments."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self._model: Any = model

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self._model({"input_ids": ids, "attention_mask": mask})
        return features["sentence_embedding"], features["token_embeddings"]


def _name(key: str, graph: bytes) -> str:
    return f"{key}.{hashlib.sha256(graph).hexdigest()[:24]}.onnx"
