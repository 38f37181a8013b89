"""Quantising a graph's products to 8 bits, each token by itself.

Activations are scaled token by token, weights column by column (Yao et al. 2022, "ZeroQuant", NeurIPS). ONNX
Runtime's own dynamic quantisation takes one scale for the whole batch: a text's vector then depends on its
company (cosine 0.989 between a passage alone and in a batch, all-MiniLM-L6-v2), which an embedder may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

_ZERO: Final = 128
"""Of activations: they are unsigned, because only unsigned by signed has instructions (AVX-512 VNNI, AMX)."""
_LARGEST: Final = 127.0
_SMALLEST: Final = np.float32(1e-30)
"""Instead of a scale of zero."""
_PREFIX: Final = "int8"


def quantise(graph: bytes) -> tuple[bytes, int]:
    """``graph`` with its products by constant matrices in 8 bits, and how many those are."""
    model = onnx.load_from_string(graph)
    products = _products(model.graph)
    weights = {node.input[1] for node in products}
    matrices = {i.name: i for i in model.graph.initializer if i.name in weights}
    constants = [
        numpy_helper.from_array(np.array(_LARGEST, np.float32), f"{_PREFIX}_largest"),
        numpy_helper.from_array(np.array(_ZERO + 0.5, np.float32), f"{_PREFIX}_round"),
        numpy_helper.from_array(np.array(_ZERO, np.uint8), f"{_PREFIX}_zero"),
        numpy_helper.from_array(np.array(_SMALLEST), f"{_PREFIX}_smallest"),
        numpy_helper.from_array(np.array([-1], np.int64), f"{_PREFIX}_last"),
    ]
    for matrix in matrices.values():
        constants.extend(_columns(matrix))
    chosen = {node.output[0] for node in products}
    nodes: list[NodeProto] = []
    scaled: set[str] = set()
    for node in model.graph.node:
        if node.output[0] not in chosen:
            nodes.append(node)
            continue
        if node.input[0] not in scaled:
            scaled.add(node.input[0])
            nodes.extend(_rows(node.input[0]))
        nodes.extend(_product(node))
    _replace(model.graph, nodes, matrices, constants)
    return model.SerializeToString(), len(products)


def int8_is_exact() -> bool:
    """Whether this CPU sums products of 8 bits in 32; older ones saturate at 16, which spoils the vectors."""
    depth = 64
    ones: NDArray[np.int8] = np.full((depth, 16), 127, np.int8)
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["n", depth])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, ["n", 16])],
        [numpy_helper.from_array(ones, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(None, {"a": np.full((n, depth), 255, np.uint8)})[0] for n in (1, 64)]
    return all((product == 255 * 127 * depth).all() for product in found)


def _products(graph: GraphProto) -> list[NodeProto]:
    """Products by a constant matrix: all of a transformer's but those inside attention."""
    matrices = {i.name for i in graph.initializer if len(i.dims) == 2 and i.data_type == TensorProto.FLOAT}
    return [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in matrices]


def _columns(matrix: TensorProto) -> Iterable[TensorProto]:
    """The matrix in int8, and the scale of each of its columns."""
    weights = numpy_helper.to_array(matrix)
    scales = np.maximum(np.abs(weights).max(axis=0) / _LARGEST, _SMALLEST).astype(np.float32)
    yield numpy_helper.from_array(np.rint(weights / scales).astype(np.int8), f"{_PREFIX}_{matrix.name}")
    yield numpy_helper.from_array(scales, f"{_PREFIX}_{matrix.name}_scales")


def _rows(x: str) -> Iterable[NodeProto]:
    """``x`` in uint8, by the scale of each of its last axis."""
    own = f"{_PREFIX}_{x}"
    yield helper.make_node("Abs", [x], [f"{own}_abs"])
    yield helper.make_node("ReduceMax", [f"{own}_abs", f"{_PREFIX}_last"], [f"{own}_max"], keepdims=1)
    yield helper.make_node("Max", [f"{own}_max", f"{_PREFIX}_smallest"], [f"{own}_positive"])
    yield helper.make_node("Div", [f"{own}_positive", f"{_PREFIX}_largest"], [f"{own}_scale"])
    yield helper.make_node("Div", [x, f"{own}_scale"], [f"{own}_scaled"])
    # Towards zero is down, above zero: with the half added, a cast rounds to the nearest.
    yield helper.make_node("Add", [f"{own}_scaled", f"{_PREFIX}_round"], [f"{own}_shifted"])
    yield helper.make_node("Cast", [f"{own}_shifted"], [own], to=TensorProto.UINT8)


def _product(node: NodeProto) -> Iterable[NodeProto]:
    x, matrix, y = node.input[0], node.input[1], node.output[0]
    own = f"{_PREFIX}_{y}"
    yield helper.make_node(
        "MatMulInteger", [f"{_PREFIX}_{x}", f"{_PREFIX}_{matrix}", f"{_PREFIX}_zero"], [f"{own}_int32"]
    )
    yield helper.make_node("Cast", [f"{own}_int32"], [f"{own}_float"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{own}_float", f"{_PREFIX}_{x}_scale"], [f"{own}_half"])
    yield helper.make_node("Mul", [f"{own}_half", f"{_PREFIX}_{matrix}_scales"], [y])


def _replace(
    graph: GraphProto, nodes: list[NodeProto], replaced: Iterable[str], constants: list[TensorProto]
) -> None:
    gone = set(replaced) - {name for node in nodes for name in node.input}
    kept = [i for i in graph.initializer if i.name not in gone]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend([*kept, *constants])
