"""From values to scores, the same in training and in serving.

`Encoder` turns columns of plain values into the matrix that a `Model` takes; the model sums, and the link makes a score
of the sum. `OnnxModel` takes the sums from ONNX Runtime, `esteira.trees.TreesModel` from native code. For trees a score
has the bits that scikit-learn gives for the same matrix.
"""

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.exceptions import BadInput, Problem, ReleaseRefused
from esteira.links import Link, inverse_link
from esteira.schema import Feature

if TYPE_CHECKING:
    import onnxruntime

Array = npt.NDArray[np.float64]
Values = Sequence[object] | npt.NDArray[Any]
Task = Literal["binary", "multiclass", "regression"]
Label = bool | int | str

FORMAT: Final = "1"
"""Of the ONNX files."""
INPUT: Final = "features"
OUTPUT: Final = "raw"

_LINKS: Final[dict[str, tuple[Link, ...]]] = {
    "binary": ("logit",),
    "multiclass": ("softmax",),
    "regression": ("identity", "log"),
}
_NUMBERS: Final = (int, float, Decimal, np.number, np.bool_, type(None))
_TEXTS: Final = (str, type(None))


class Metadata(msgspec.Struct, frozen=True):
    """What a model says about itself; in an ONNX file under `esteira_<field>`."""

    format: str
    task: Task
    features: str
    """Digest of the features that it was trained on; see `digest`."""
    link: Link
    classes: list[Label]
    """In the order of the scores' columns; empty for a regression."""

    def properties(self) -> dict[str, str]:
        """Gives the pairs to store in an ONNX file."""
        return {
            f"esteira_{name}": msgspec.json.encode(value).decode() for name, value in msgspec.to_builtins(self).items()
        }


def digest(features: Sequence[Feature]) -> str:
    """Identifies the names, kinds, categories and order of `features`: a SHA-256 in hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(list(features))).hexdigest()


class Encoder:
    """Turns columns of plain values into a matrix.

    Numbers and booleans become float64 (integers beyond 2**53 are rounded to the nearest double, halves to even); a
    category becomes its index. None, NaN, infinities, numbers beyond the range of a double and categories that are
    not in the list are missing: NaN. So a matrix holds finite numbers and NaN only.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self._codes = [{category: float(code) for code, category in enumerate(f.categories)} for f in features]
        self._categorical = [(at, self._codes[at]) for at, f in enumerate(features) if f.kind == "categorical"]

    def encode(self, columns: Mapping[str, Values]) -> Array:
        """Encodes `columns` to shape (rows, features), C-contiguous; columns that are no feature are ignored.

        Raises:
            BadInput: a column is absent, is longer or shorter than the first, or holds a value of another type.
        """
        rows = len(self._column(columns, self.features[0])) if self.features else 0
        matrix = np.empty((rows, len(self.features)))
        for index, feature in enumerate(self.features):
            values = self._column(columns, feature)
            if len(values) != rows:
                problem = (
                    f"has {len(values)} rows where `{self.features[0].name}` has {rows}; send columns of one length"
                )
                raise BadInput([Problem(feature.name, problem)])
            numeric = feature.kind == "numeric"
            matrix[:, index] = _numbers(feature, values) if numeric else _codes(feature, values, self._codes[index])
        matrix[np.isinf(matrix)] = np.nan
        return matrix

    def encode_rows(self, rows: Sequence[Sequence[Any]]) -> Array:
        """Encodes rows of values, in the order of the features, to the matrix that `encode` makes of their columns.

        Args:
            rows: numbers, booleans and None for numeric features, strings and None for the others; not checked.
        """
        if self._categorical:
            rows = [self._coded(row) for row in rows]
        try:
            matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(self.features))
        except OverflowError:
            matrix = np.array([[_number(value) for value in row] for row in rows])
        matrix[np.isinf(matrix)] = np.nan
        return matrix

    def _coded(self, row: Sequence[Any]) -> list[Any]:
        values = list(row)
        for position, codes in self._categorical:
            values[position] = codes.get(values[position], math.nan)
        return values

    @staticmethod
    def _column(columns: Mapping[str, Values], feature: Feature) -> Values:
        try:
            return columns[feature.name]
        except KeyError:
            raise BadInput([Problem(feature.name, "is absent; send a value or null for every feature")]) from None


def encode(features: Sequence[Feature], columns: Mapping[str, Values]) -> Array:
    """Encodes once; see `Encoder`, which is quicker where the same features come again."""
    return Encoder(features).encode(columns)


def _numbers(feature: Feature, values: Values) -> Array:
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return _filled(values)
    plain = _plain(values)
    _require(feature, plain, _NUMBERS, "a number or a boolean")
    try:
        return np.array(plain, dtype=np.float64)
    except OverflowError:
        return np.array([_number(value) for value in plain])


def _filled(values: npt.NDArray[Any]) -> Array:
    numbers = values.astype(np.float64)
    return numbers.filled(np.nan) if isinstance(numbers, np.ma.MaskedArray) else numbers


def _number(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.nan


def _codes(feature: Feature, values: Values, codes: Mapping[str, float]) -> list[float]:
    plain = [None if value != value else value for value in _plain(values)]
    _require(feature, plain, _TEXTS, "a string")
    return [codes.get(value, math.nan) for value in plain]  # type: ignore[call-overload]


def _plain(values: Values) -> list[object]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _require(feature: Feature, values: list[object], types: tuple[type, ...], expected: str) -> None:
    if all(issubclass(kind, types) for kind in set(map(type, values))):
        return
    row = next(row for row, value in enumerate(values) if not isinstance(value, types))
    found = type(values[row]).__name__
    raise BadInput([Problem(f"rows[{row}].{feature.name}", f"is of type {found}; expected {expected}, or null")])


class Model(ABC):
    """What turns a matrix into scores, and says which task and features it is for. Safe to share by threads."""

    FORMAT: ClassVar[str]
    """Of its file; a model of another one is refused."""

    def __init__(self, metadata: Metadata, task: Task, features: Sequence[Feature]) -> None:
        """Holds what a model says about itself against what the release says.

        Args:
            metadata: the model's.
            task: what the release's pipeline does.
            features: the release's features, in the order of the matrix.

        Raises:
            ReleaseRefused: they do not fit.
        """
        _check_metadata(metadata, self.FORMAT, task, features)
        self.metadata = metadata
        self.task: Task = task
        self.encoder = Encoder(features)

    @property
    def classes(self) -> list[Label]:
        """The labels in the order of the scores; a binary score is the probability of the second."""
        return self.metadata.classes

    @property
    def outputs(self) -> int:
        """How many sums a row has."""
        return len(self.metadata.classes) if self.metadata.link == "softmax" else 1

    @abstractmethod
    def raw(self, matrix: Array) -> Array:
        """Sums before the link, shape (rows, 1), or (rows, classes) for a multiclass model."""

    def score(self, matrix: Array) -> Array:
        """Scores rows of shape (rows, features), made by `encoder`.

        Returns:
            Shape (rows,): the probability of the positive class, or the value of a regression; (rows, classes) for a
            multiclass model: probabilities in the order of `classes`.
        """
        return inverse_link(self.metadata.link, self.raw(matrix))


class OnnxModel(Model):
    """A model that Esteira exported as ONNX, ready to score on one thread.

    Sums on one thread keep the order of additions and with it the bits; scale with processes, not with threads.
    """

    FORMAT = FORMAT

    def __init__(self, data: bytes, task: Task, features: Sequence[Feature]) -> None:
        """Loads the model and holds it against what the release says.

        Args:
            data: the ONNX file.
            task: what the release's pipeline does.
            features: the release's features, in the order of the matrix.

        Raises:
            ReleaseRefused: ONNX Runtime cannot load it, or its metadata or width do not fit.
        """
        self._session = _load(data)
        super().__init__(_metadata(self._session), task, features)
        _check_input(self._session, len(features))
        _check_output(self._session, self.outputs)

    def raw(self, matrix: Array) -> Array:
        """Sums before the link, shape (rows, 1), or (rows, classes) for a multiclass model."""
        if not len(matrix):
            return np.empty((0, self.outputs))
        result: Array = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(matrix, dtype=np.float64)})[0]
        return result


def _load(data: bytes) -> "onnxruntime.InferenceSession":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would start a thread, and write into the user's home
    import onnxruntime  # 20 MB that trees do without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        message = f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}; export it again"
        raise ReleaseRefused(message) from error


def _metadata(session: "onnxruntime.InferenceSession") -> Metadata:
    stored = session.get_modelmeta().custom_metadata_map
    try:
        found = {name: msgspec.json.decode(stored[f"esteira_{name}"]) for name in Metadata.__struct_fields__}
        return msgspec.convert(found, Metadata)
    except KeyError as error:
        raise ReleaseRefused(f"the model's metadata lacks {error}; only models of Esteira's exporter serve") from error
    except msgspec.MsgspecError as error:
        raise ReleaseRefused(f"the model's metadata is damaged: {error}; export it again") from error


def _check_metadata(metadata: Metadata, known: str, task: Task, features: Sequence[Feature]) -> None:
    expected = {"format": known, "task": task, "features": digest(features)}
    for name, value in expected.items():
        if (found := getattr(metadata, name)) != value:
            raise ReleaseRefused(f"the model's {name} is {found!r}, the release's {value!r}; release what was exported")
    if metadata.link not in _LINKS[task]:
        raise ReleaseRefused(f"the model's link {metadata.link!r} does not fit the task {task!r}; export it again")


def _check_input(session: "onnxruntime.InferenceSession", width: int) -> None:
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    if inputs != [(INPUT, "tensor(double)", [width])]:
        raise ReleaseRefused(f"the model takes {inputs}; the release has {width} float64 features in `{INPUT}`")


def _check_output(session: "onnxruntime.InferenceSession", width: int) -> None:
    outputs = [(node.name, node.type, node.shape[1:]) for node in session.get_outputs()]
    if outputs != [(OUTPUT, "tensor(double)", [width])]:
        raise ReleaseRefused(f"the model gives {outputs}; expected {width} float64 sums in `{OUTPUT}`")
