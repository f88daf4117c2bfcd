"""Tensors of the Open Inference Protocol, read into rows and made of predictions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from esteira.exceptions import BadInput, Problem
from esteira.release import Release
from esteira.schema import ColumnType, show
from predictor.dialects.rows import Rows, check_names, column_types, request_columns, transpose
from predictor.inference import PredictAnswer
from predictor.problems import refuse

Scalar = str | int | float | bool
DATATYPES: Mapping[ColumnType, str] = {
    "integer": "INT64",
    "number": "FP64",
    "string": "BYTES",
    "boolean": "BOOL",
    "timestamp": "BYTES",
    "date": "BYTES",
}
_FLOATS = ("FP64", "FP32", "FP16")
_INTEGERS = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
"""Smallest and largest value of each."""


class Tensor(msgspec.Struct, frozen=True):
    """An input, or an output."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InputTensor(Tensor, frozen=True):
    """One column, or all numeric features as a matrix."""

    parameters: dict[str, Scalar] = {}


class Misfit(msgspec.Struct, frozen=True):
    """A value that is not of its tensor's datatype: no rule takes it, each tells it."""

    value: Any
    datatype: str

    def __str__(self) -> str:
        return f"{show(self.value)}, which is no {self.datatype}"


def read_tensors(release: Release, inputs: Sequence[InputTensor]) -> Rows:
    """Reads a tensor for each column, of shape [rows] or [rows, 1]; or one matrix of all features, if all are numeric.

    `null` stands for a missing value.

    Raises:
        BadInput: a tensor is not what it says, or of another type than its column.
    """
    if _is_matrix(release, inputs):
        refuse(_check(inputs[0], "inputs[0]", matrix=True))
        return _read_matrix(release, inputs[0])
    names = [tensor.name for tensor in inputs]
    kind, misnamed = check_names(release, names, [f"inputs[{at}].name" for at in range(len(inputs))], "inputs")
    if wrong := _check_columns(inputs, column_types(release, kind)):
        refuse([*misnamed, *wrong])
    rows = transpose({tensor.name: _values(tensor) for tensor in inputs})
    return Rows(rows=rows, kind=kind, path="inputs", locate=_in_tensors(names), misnamed=misnamed)


def describe_inputs(release: Release) -> list[dict[str, Any]]:
    """The tensors of the raw columns."""
    return [{"name": c.name, "datatype": DATATYPES[c.type], "shape": [-1, 1]} for c in request_columns(release)]


def describe_outputs(release: Release) -> list[dict[str, Any]]:
    """The tensors that a prediction gives."""
    label = [] if release.threshold is None else [{"name": "label", "datatype": "BOOL", "shape": [-1, 1]}]
    identity = {"name": "prediction_id", "datatype": "BYTES", "shape": [-1, 1]}
    return [{"name": "score", "datatype": "FP64", "shape": [-1, 1]}, *label, identity]


def make_outputs(answer: PredictAnswer, described: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """One value of each prediction in a tensor for each of the outputs."""
    shape = [len(answer.predictions), 1]
    return [
        Tensor(output["name"], shape, output["datatype"], [getattr(p, output["name"]) for p in answer.predictions])
        for output in described
    ]


def _is_matrix(release: Release, inputs: Sequence[InputTensor]) -> bool:
    """One tensor of two dimensions, whose name is no column's: clients of other servers call it what they like."""
    names = {column.name for column in release.columns} | {feature.name for feature in release.features}
    if len(inputs) != 1 or inputs[0].name in names or len(inputs[0].shape) != 2:
        return False
    return all(feature.kind == "numeric" for feature in release.features)


def _read_matrix(release: Release, tensor: InputTensor) -> Rows:
    width, names = tensor.shape[1], [feature.name for feature in release.features]
    if width != len(names):
        raise BadInput([Problem("inputs[0].shape", f"has {width} columns, expected {len(names)}: {', '.join(names)}")])
    refuse(_check_datatype(tensor, "number", "inputs[0]"))
    values = _values(tensor)
    rows = [dict(zip(names, values[at : at + width], strict=True)) for at in range(0, len(values), width)]
    places = {name: at for at, name in enumerate(names)}

    def locate(at: int, name: str | None) -> str:
        return f"inputs[0].data[{at * width + places[name]}]" if name in places else f"inputs[0].data, row {at}"

    return Rows(rows=rows, kind="features", path="inputs", locate=locate)


def _check_columns(inputs: Sequence[InputTensor], types: Mapping[str, ColumnType]) -> list[Problem]:
    """What is wrong with the tensors of columns, but for their values; an unknown column has no datatype to hold to."""
    placed = [(f"inputs[{at}]", tensor) for at, tensor in enumerate(inputs)]
    shapes = [problem for path, tensor in placed for problem in _check(tensor, path, matrix=False)]
    known = [(path, tensor, types[tensor.name]) for path, tensor in placed if tensor.name in types]
    datatypes = [problem for path, tensor, kind in known for problem in _check_datatype(tensor, kind, path)]
    return [*shapes, *datatypes] or _check_ragged(inputs)


def _check(tensor: InputTensor, path: str, matrix: bool) -> list[Problem]:
    """What is wrong between shape and data; data may be nested as the shape says, or flat."""
    shape, data = tensor.shape, tensor.data
    if not matrix and not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        return [Problem(f"{path}.shape", f"expected [rows] or [rows, 1], got {shape}")]
    if any(length < 0 for length in shape):
        return [Problem(f"{path}.shape", f"has a negative length: {shape}")]
    size = shape[0] * (shape[1] if len(shape) == 2 else 1)
    nested = any(isinstance(value, list) for value in data)
    if nested and (len(shape) == 1 or not all(isinstance(v, list) and len(v) == shape[1] for v in data)):
        return [Problem(f"{path}.data", f"is not nested as its shape {shape} says")]
    if len(data) != (shape[0] if nested else size):
        return [Problem(f"{path}.data", f"holds {len(data)} values, its shape {shape} says {size}")]
    return []


def _flatten(data: list[Any]) -> list[Any]:
    return [value for row in data for value in row] if data and isinstance(data[0], list) else data


def _check_datatype(tensor: InputTensor, kind: ColumnType, path: str) -> list[Problem]:
    """The datatype must fit the column; values come later."""
    numeric = kind in ("integer", "number")
    allowed = [*_INTEGERS, *_FLOATS] if numeric else [DATATYPES[kind]]
    if tensor.datatype not in allowed:
        told = f"{tensor.name!r} is {DATATYPES[kind]}{' or another number' if numeric else ''}"
        return [Problem(f"{path}.datatype", f"{told}, got {tensor.datatype!r}")]
    return []


def _values(tensor: InputTensor) -> list[Any]:
    """Values must fit the datatype, and the rules of their column too: what breaks either is told with all else."""
    fits, datatype = _fits(tensor.datatype), tensor.datatype
    return [v if v is None or fits(v) else Misfit(v, datatype) for v in _flatten(tensor.data)]


def _fits(datatype: str) -> Callable[[Any], bool]:
    if datatype in _INTEGERS:
        low, high = _INTEGERS[datatype]
        return lambda value: type(value) is int and low <= value <= high
    if datatype in _FLOATS:
        return lambda value: type(value) in (int, float)
    kind = bool if datatype == "BOOL" else str
    return lambda value: type(value) is kind


def _check_ragged(inputs: Sequence[InputTensor]) -> list[Problem]:
    lengths = {tensor.name: tensor.shape[0] for tensor in inputs}
    if len(set(lengths.values())) <= 1:
        return []
    told = ", ".join(f"{name} {length}" for name, length in lengths.items())
    return [Problem("inputs", f"the tensors have different numbers of rows: {told}")]


def _in_tensors(names: Sequence[str]) -> Callable[[int, str | None], str]:
    places = {name: f"inputs[{at}]" for at, name in enumerate(names)}
    return lambda at, name: f"{places[name]}.data[{at}]" if name in places else f"inputs, row {at}"
