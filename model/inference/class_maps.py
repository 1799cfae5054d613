"""What spoke for an answer, from an exported network alone: class activation maps without Keras and without gradients.

Behind global average pooling and one dense layer the evidence for a class at a place is the last feature maps there
times the class' weights, exactly (Zhou et al., CAM, CVPR 2016).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np

ClassMaps = Callable[[np.ndarray], np.ndarray]  # uint8 (S, S, C) to float32 (places down, places across, classes)


@dataclass(frozen=True)
class _Ending:
    """The end of a network's graph. maps: tensor before the pooling; kernel: of the dense layer, float (classes, C);
    outputs: where in the file the number of the tensor stands that the network gives.
    """

    maps: int
    kernel: np.ndarray
    outputs: int


def open_class_maps(path: Path) -> ClassMaps | None:
    """The evidence for every class that a .tflite network sees in a picture; None where it has no such maps, as behind
    flatten. It may be called from several threads.
    """
    from ai_edge_litert.interpreter import Interpreter

    data = bytearray(path.read_bytes())
    ending = _ending(data)
    if ending is None:
        return None
    # The same network, which gives the maps in place of the probabilities.
    struct.pack_into("<i", data, ending.outputs, ending.maps)
    interpreter, lock = Interpreter(model_content=bytes(data), num_threads=1), Lock()
    interpreter.allocate_tensors()
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    quantized = wanted["quantization_parameters"]

    def evidence(image: np.ndarray) -> np.ndarray:
        with lock:
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            maps = interpreter.get_tensor(wanted["index"])[0].astype(np.float32)
        if len(quantized["scales"]):
            maps = (maps - quantized["zero_points"][0]) * quantized["scales"][0]
        spoke: np.ndarray = maps @ ending.kernel.T
        return spoke

    return evidence


def heat_of(evidence: np.ndarray, size_px: int) -> np.ndarray:
    """Evidence for a class, float (down, across), to heat over a picture: float32 (size, size), 0..1, 0 where nothing
    spoke for it.
    """
    heat = cv2.resize(np.maximum(evidence, 0).astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(heat / max(float(heat.max()), 1e-6), 0, 1)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture, uint8 (S, S, 1) or (S, S, 3), with heat (S, S), 0..1, in color over it: uint8 (S, S, 3), RGB."""
    color = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = 0.65 * heat[..., None]
    return (image * (1 - share) + color * share).astype(np.uint8)


def _ending(data: bytearray) -> _Ending | None:
    """What follows the last feature maps, where that is pooling, a dense layer and softmax.

    Source: TensorFlow's schema of .tflite files, tensorflow/compiler/mlir/lite/schema/schema.fbs.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
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
    pooling = dense and behind(dense.Inputs(0), schema.BuiltinOperator.MEAN)
    if not pooling:
        return None
    kernel = graph.Tensors(dense.Inputs(1))
    weights = np.asarray(model.Buffers(kernel.Buffer()).DataAsNumpy()).view(
        np.int8 if kernel.Type() == schema.TensorType.INT8 else np.float32
    )
    weights = weights.reshape(kernel.ShapeAsNumpy()).astype(np.float32)
    if kernel.Type() == schema.TensorType.INT8:  # symmetric: their zero is 0
        weights = weights * np.reshape(kernel.Quantization().ScaleAsNumpy(), (-1, 1))
    outputs = graph._tab.Vector(graph._tab.Offset(8))  # the third field of a graph
    return _Ending(maps=pooling.Inputs(0), kernel=weights, outputs=outputs)
