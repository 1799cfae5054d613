"""Where an exported network ends, read from its .tflite file.

Source: TensorFlow's schema of .tflite files, tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.inference.formats import level

OUTPUTS = 8  # where a graph's table keeps the place of its third field


@dataclass(frozen=True)
class Ending:
    """The last layers of a classifier, as numbers of tensors.

    texture: the earlier maps that tell of it; maps: pooled to the features, None behind flatten; kernel: of the last
    layer, float32 (features, classes).
    """

    probabilities: int
    features: int
    texture: int
    maps: int | None
    kernel: np.ndarray


def ending_of(data: bytes) -> Ending | None:
    """What the network in a .tflite file ends in; None where that is no dense layer with softmax."""
    from ai_edge_litert import schema_py_generated as schema

    model, graph = _opened(data)
    made_by = {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the older field has one byte
        made_by[operator.Outputs(0)] = kind, operator

    def behind(tensor: int, kind: int) -> Any:
        """The operator that gives a tensor, if it is of a kind; a change of 8-bit scales between them is passed."""
        found, operator = made_by.get(tensor, (None, None))
        if found in (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE) and found != kind:
            return behind(operator.Inputs(0), kind)
        return operator if found == kind else None

    softmax = behind(graph.Outputs(0), schema.BuiltinOperator.SOFTMAX)
    dense = softmax and behind(softmax.Inputs(0), schema.BuiltinOperator.FULLY_CONNECTED)
    if not dense:
        return None
    pooling = behind(dense.Inputs(0), schema.BuiltinOperator.MEAN)
    before = pooling or behind(dense.Inputs(0), schema.BuiltinOperator.RESHAPE)
    if not before:
        return None
    pads = schema.BuiltinOperator.PAD, schema.BuiltinOperator.PADV2  # of sizes between two layers'
    shapes = {tensor: graph.Tensors(tensor).ShapeAsNumpy() for tensor, (kind, _) in made_by.items() if kind not in pads}
    sizes = {tensor: int(shape[1]) for tensor, shape in shapes.items() if len(shape) == 4}  # in the order of the layers
    fine = level(sizes.values(), int(graph.Tensors(before.Inputs(0)).ShapeAsNumpy()[1]))
    texture = [tensor for tensor, size in sizes.items() if size == fine][-1]
    kernel = graph.Tensors(dense.Inputs(1))
    weights = np.asarray(model.Buffers(kernel.Buffer()).DataAsNumpy()).view(
        np.int8 if kernel.Type() == schema.TensorType.INT8 else np.float32
    )
    weights = weights.reshape(kernel.ShapeAsNumpy()).astype(np.float32)
    if kernel.Type() == schema.TensorType.INT8:  # symmetric: their zero is 0
        weights = weights * np.reshape(kernel.Quantization().ScaleAsNumpy(), (-1, 1))
    maps = pooling.Inputs(0) if pooling else None
    return Ending(graph.Outputs(0), dense.Inputs(0), texture, maps, weights.T)


def giving(data: bytes, tensors: Sequence[int]) -> bytes:
    """The same network, which gives these tensors: whatever it computes on its way costs nothing more."""
    _, graph = _opened(data)
    place = graph._tab.Pos + graph._tab.Offset(OUTPUTS)
    patched = bytearray(data)
    patched += bytes(-len(data) % 4)
    # A longer list does not fit where the old one stands. It comes last, and its place is counted from `place`.
    struct.pack_into("<I", patched, place, len(patched) - place)
    patched += struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)
    return bytes(patched)


def _opened(data: bytes) -> tuple[Any, Any]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    return model, model.Subgraphs(0)
