"""Reads ONNX Runtime's flatbuffer files (`.ort`): initializers and nodes, subgraphs included."""

from dataclasses import dataclass
from pathlib import Path

import numpy
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import InferenceSession

# The numbers of `fbs.TensorDataType` that weights use.
ELEMENT_TYPES = {1: numpy.float32, 2: numpy.uint8, 3: numpy.int8, 6: numpy.int32, 7: numpy.int64}


@dataclass
class Node:
    """One operation: its name carries the path of the module that it was exported from."""

    name: str
    kind: str
    inputs: list[str]
    outputs: list[str]


@dataclass
class OrtGraph:
    """All initializers by name, and all nodes in stored order."""

    initializers: dict[str, numpy.ndarray]
    nodes: list[Node]

    def node(self, name: str) -> Node:
        """The first node of this name; the branches of an `If` hold the same weights twice."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"the file has no node `{name}`: is it the version that the script expects?")

    def tensor(self, name: str) -> numpy.ndarray:
        if name not in self.initializers:
            raise KeyError(f"the file has no initializer `{name}`: is it the version that the script expects?")
        return self.initializers[name]


def read_ort(path: Path) -> OrtGraph:
    """Reads the file at `path`; raises `ValueError` where it is no ORT file."""
    data = Path(path).read_bytes()
    if data[4:8] != b"ORTM":
        raise ValueError(f"{path} is not an ORT model file (its identifier is {data[4:8]!r}, not b'ORTM')")
    graph = OrtGraph({}, [])
    _collect(InferenceSession.InferenceSession.GetRootAs(data, 0).Model().Graph(), graph)
    return graph


def _collect(source, graph: OrtGraph) -> None:
    for index in range(source.InitializersLength()):
        tensor = source.Initializers(index)
        element_type = ELEMENT_TYPES.get(tensor.DataType())
        if element_type is None:
            continue
        shape = [tensor.Dims(axis) for axis in range(tensor.DimsLength())]
        values = tensor.RawDataAsNumpy().view(element_type).reshape(shape)
        graph.initializers.setdefault(tensor.Name().decode(), values)
    for index in range(source.NodesLength()):
        node = source.Nodes(index)
        graph.nodes.append(
            Node(
                name=node.Name().decode(),
                kind=node.OpType().decode(),
                inputs=[node.Inputs(i).decode() for i in range(node.InputsLength())],
                outputs=[node.Outputs(i).decode() for i in range(node.OutputsLength())],
            )
        )
        for attribute in (node.Attributes(i) for i in range(node.AttributesLength())):
            if attribute.G() is not None:
                _collect(attribute.G(), graph)
