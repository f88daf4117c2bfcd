"""Every form in which rows come to the predictor: how it is written, and how it names the place of a value."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from value_rules import GOOD, KINDS

NAMES = list(GOOD)
Texts = Sequence[Mapping[str, str]]
"""Rows whose values are JSON's texts."""
DATATYPES = {"integer": "INT64", "number": "FP64", "string": "BYTES", "boolean": "BOOL", "timestamp": "BYTES"}
DATATYPES["date"] = "BYTES"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    url: str
    write: Callable[[Texts], str]
    place: Callable[[int, str], str]
    """Of a value, by the row's position and the column."""
    content_type: str = "application/json"
    columns: str | None = None
    """Where names of columns stand that belong to all rows; None where each row brings its own."""


def good(position: int = 0) -> dict[str, str]:
    """A row that every rule takes."""
    return {name: json.dumps(value) for name, value in {**GOOD, "id": position}.items()}


def _object(row: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in row.items()) + "}"


def _array(texts: Sequence[str]) -> str:
    return "[" + ", ".join(texts) + "]"


def _records(key: str) -> Callable[[Texts], str]:
    return lambda rows: f'{{"{key}": {_array([_object(row) for row in rows])}}}'


def _split(rows: Texts) -> str:
    names = list(rows[0])
    data = _array([_array([row[name] for name in names]) for row in rows])
    return f'{{"dataframe_split": {{"columns": {json.dumps(names)}, "data": {data}}}}}'


def _columns(rows: Texts) -> str:
    return '{"inputs": ' + _object({name: _array([row[name] for row in rows]) for name in rows[0]}) + "}"


def _tensors(rows: Texts) -> str:
    tensors = [
        _object(
            {
                "name": json.dumps(name),
                "shape": f"[{len(rows)}]",
                "datatype": json.dumps(_datatype(name, [row[name] for row in rows])),
                "data": _array([row[name] for row in rows]),
            }
        )
        for name in rows[0]
    ]
    return f'{{"inputs": {_array(tensors)}}}'


def _datatype(name: str, texts: Sequence[str]) -> str:
    """Integers may come as doubles."""
    plain = all(text == "null" or text.lstrip("-").isdigit() or not text[-1].isdigit() for text in texts)
    kind = KINDS.get(name, "string")
    return "FP64" if kind == "integer" and not plain else DATATYPES[kind]


def _lines(rows: Texts) -> str:
    return "\n".join(_object(row) for row in rows)


def _at(path: str) -> Callable[[int, str], str]:
    return lambda at, name: f"{path}[{at}].{name}"


def _by_column(at: int, name: str) -> str:
    return f"inputs.{name}[{at}]"


JSON_FORMS = {
    "native": Form(url="/pipelines/rules/predict", write=_records("rows"), place=_at("rows")),
    "MLflow dataframe_split": Form(
        url="/invocations", write=_split, place=_at("dataframe_split.data"), columns="dataframe_split.data"
    ),
    "MLflow dataframe_records": Form(
        url="/invocations", write=_records("dataframe_records"), place=_at("dataframe_records")
    ),
    "MLflow instances": Form(url="/invocations", write=_records("instances"), place=_at("instances")),
    "MLflow inputs": Form(url="/invocations", write=_columns, place=_by_column, columns="inputs"),
    "SageMaker JSON lines": Form(
        url="/invocations",
        write=_lines,
        place=lambda at, name: f"line {at + 1}, column {name}",
        content_type="application/jsonlines",
    ),
    "Open Inference tensors": Form(
        url="/v2/models/rules/infer",
        write=_tensors,
        place=lambda at, name: f"inputs[{NAMES.index(name)}].data[{at}]",
        columns="inputs",
    ),
    "TensorFlow Serving and KServe instances": Form(
        url="/v1/models/rules:predict", write=_records("instances"), place=_at("instances")
    ),
    "TensorFlow Serving columns": Form(
        url="/v1/models/rules:predict", write=_columns, place=_by_column, columns="inputs"
    ),
    "Vertex AI instances": Form(url="/vertex/predict", write=_records("instances"), place=_at("instances")),
}
FEATURES = Form(url="/pipelines/rules/predict", write=_records("features"), place=_at("features"))


def good_fields(position: int = 0) -> dict[str, str]:
    """A row that every rule takes, as fields of CSV."""
    return {name: str(value) for name, value in {**GOOD, "id": position}.items()}


def write_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """With a header; fields are written as they are."""
    return "".join(",".join(fields) + "\n" for fields in [list(rows[0]), *(list(row.values()) for row in rows)])


def unquote(field: str) -> str:
    """What a field says."""
    return next(csv.reader(io.StringIO(field, newline="")), [""])[0] if '"' in field else field


def message(answer: Any) -> str:
    """What an error says, in whatever form."""
    told = answer.get("error", answer.get("message"))
    return str(told["message"] if isinstance(told, dict) else told)


def problems(answer: Any) -> list[str]:
    """What is wrong, one by one; no message of the rules has a semicolon before a space but those that are listed."""
    return message(answer).split("; ")
