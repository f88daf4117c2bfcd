"""The graph under construction, and what cannot become one."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from esteira.exceptions import PermanentError
from esteira.scoring import INPUT, OUTPUT, Metadata

IR_VERSION: Final = 10
OPSET: Final = 21
OPSET_ML: Final = 5


class NotExportable(PermanentError):
    """The estimator has no exact ONNX form here."""

    def __init__(self, estimator: object, reason: str) -> None:
        name = type(estimator).__name__
        advice = (
            "build the model from HistGradientBoosting*, LogisticRegression, Ridge or LinearRegression, alone or in a "
            "Pipeline with SimpleImputer, StandardScaler, OneHotEncoder and ColumnTransformer, fitted on the matrix"
        )
        super().__init__(f"{name} cannot be exported: {reason}; {advice}")
        self.estimator = name


class NotSummable(PermanentError):
    """Native code does not sum the estimator; ONNX Runtime may serve it."""

    def __init__(self, estimator: object, reason: str) -> None:
        super().__init__(f"{type(estimator).__name__} is not summed by native code: {reason}")


class NotExplainable(PermanentError):
    """The scores of the estimator cannot be taken apart here."""

    def __init__(self, estimator: object, reason: str) -> None:
        super().__init__(f"{type(estimator).__name__} cannot be explained: {reason}")


class Graph:
    """Nodes and constants, gathered from the input to the output.

    A tensor is known by its name; every tensor of a graph has shape (rows, width) and float64 values, if its maker
    says nothing else.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node of one output and gives the output's name."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> str:
        """Adds a constant and gives its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def take(self, tensor: str, columns: Sequence[int]) -> str:
        """Selects `columns` of `tensor`, in their order."""
        return self.add("Gather", tensor, self.constant(columns, np.int64), axis=1)

    def to_bytes(self, raw: str, width: int, outputs: int, metadata: Metadata) -> bytes:
        """Closes the graph with `raw` as its output and writes it.

        Args:
            raw: the tensor of sums, shape (rows, outputs).
            width: the number of features.
            outputs: one, or one per class.
            metadata: stored in the file, for the check on loading.
        """
        self._nodes.append(helper.make_node("Identity", [raw], [OUTPUT]))
        graph = helper.make_graph(
            self._nodes,
            "esteira",
            [helper.make_tensor_value_info(INPUT, onnx.TensorProto.DOUBLE, ["rows", width])],
            [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.DOUBLE, ["rows", outputs])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
        model = helper.make_model(graph, producer_name="esteira", ir_version=IR_VERSION, opset_imports=opsets)
        helper.set_model_props(model, metadata.properties())
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
