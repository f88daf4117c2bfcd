"""The routes of other serving systems: MLflow, SageMaker, KServe, TensorFlow Serving, Vertex AI, Open Inference."""

import csv
import io
from typing import Any

import msgspec

from esteira.release import Release
from predictor.dialects.options import DialectOptions
from predictor.dialects.rows import request_columns
from predictor.dialects.tensors import describe_inputs
from predictor.openapi.schemas import answer_schema, array_of, content, object_of, operation, row_schema

_ANY: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {"type": "string"}
_SIMPLE_ERROR = object_of({"error": _TEXT})
_MLFLOW_ERROR = object_of({"error_code": _TEXT, "message": _TEXT})
_COLUMNS = {"type": "object", "additionalProperties": {"type": "array"}}
_VERSION = [{"name": "version", "in": "path", "required": True, "schema": _TEXT}]
_TENSOR = object_of(
    {"name": _TEXT, "shape": array_of({"type": "integer"}), "datatype": _TEXT, "data": {"type": "array"}},
    parameters=_ANY,
)


def model_paths(release: Release) -> dict[str, Any]:
    """The dialects whose path names the pipeline."""
    name = release.pipeline
    v1, v2 = f"/v1/models/{name}", f"/v2/models/{name}"
    versioned = {f"{v2}/versions/{{version}}{path}": item for path, item in _model(release).items()}
    return {
        v1: {"get": operation(f"Version and state of {name}", "TensorFlow Serving, KServe v1", _ANY)},
        f"{v1}:predict": {"post": _predict(release)},
        **{f"{v2}{path}": item for path, item in _model(release).items()},
        **{path: {"parameters": _VERSION, **item} for path, item in versioned.items()},
    }


def service_paths(default: Release | None, options: DialectOptions) -> dict[str, Any]:
    """The dialects whose path names no pipeline.

    Args:
        default: the release that they ask; None where there is none, or none that may be shown.
        options: say which paths are Vertex AI's.
    """
    live, models = object_of({"live": {"type": "boolean"}}), object_of({"models": array_of(_TEXT)})
    found = {
        "/invocations": {"post": _invoke(default)},
        "/ping": {"get": _probe("Whether each pipeline is served")},
        "/health": {"get": _probe("Whether each pipeline is served")},
        "/version": {"get": _probe("The MLflow whose protocol this is")},
        "/v1/models": {"get": operation("The pipelines served here", "TensorFlow Serving, KServe v1", models)},
        "/v2": {"get": operation("Name and version of the server", "Open Inference Protocol", _ANY)},
        "/v2/health/live": {"get": operation("Whether the process lives", "Open Inference Protocol", live)},
        "/v2/health/ready": {"get": operation("Whether each pipeline is served", "Open Inference Protocol", live)},
    }
    if options.health_route:
        found[options.health_route] = {"get": operation("Whether each pipeline is served", "Vertex AI", _ANY)}
    if options.predict_route:
        found[options.predict_route] = {"post": _vertex(default)}
    return found


def _summary(release: Release | None) -> str:
    """Names no pipeline, and no reason, to whom none may be shown."""
    return (
        f"Predict {release.label}" if release else "Predict by the pipeline DEFAULT_PIPELINE, or the only one there is"
    )


def _row(release: Release | None) -> dict[str, Any]:
    """A raw row, by name; or the features, by name or in their order."""
    if release is None:
        return {}
    return {"anyOf": [row_schema(request_columns(release)), _ANY, {"type": "array"}]}


def _outputs(release: Release | None) -> dict[str, Any]:
    """Scores, or what else was asked for."""
    other = [{"type": ["boolean", "null"]}, answer_schema(release)] if release else []
    return array_of({"anyOf": [{"type": "number"}, *other]})


def _predict(release: Release) -> dict[str, Any]:
    asked = {
        "type": "object",
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "properties": {"instances": array_of(_row(release)), "inputs": _COLUMNS, "signature_name": _TEXT},
    }
    outputs = _outputs(release)
    answer = {"type": "object", "properties": {"predictions": outputs, "outputs": outputs}}
    return operation(
        f"Predict {release.label}",
        "TensorFlow Serving, KServe v1",
        answer,
        asked=content(asked, _example(release, "instances")),
        error=_SIMPLE_ERROR,
    )


def _model(release: Release) -> dict[str, Any]:
    name, tag = release.pipeline, "Open Inference Protocol"
    metadata = object_of({"name": _TEXT, "versions": array_of(_TEXT), "platform": _TEXT})
    ready = object_of({"name": _TEXT, "ready": {"type": "boolean"}})
    asked = object_of({"inputs": array_of(_TENSOR)}, id=_TEXT, parameters=_ANY, outputs=array_of(_ANY))
    answer = object_of({"model_name": _TEXT, "model_version": _TEXT, "outputs": array_of(_TENSOR)}, id=_TEXT)
    infer = operation(
        f"Predict {release.label}", tag, answer, asked=content(asked, _tensors(release)), error=_SIMPLE_ERROR
    )
    return {
        "": {"get": operation(f"Tensors of {name}", tag, metadata, error=_SIMPLE_ERROR)},
        "/ready": {"get": operation(f"Whether {name} is served", tag, ready, error=_SIMPLE_ERROR)},
        "/infer": {"post": infer},
    }


def _example(release: Release | None, name: str) -> dict[str, Any] | None:
    """The release's first example row, where it has one."""
    return {name: release.example[:1]} if release and release.example else None


def _csv_example(release: Release | None) -> str | None:
    """The same, with a header."""
    if release is None or not release.example:
        return None
    row = {name: value for name, value in release.example[0].items() if value is not None or release.null_values}
    fields = [release.null_values[0] if value is None else _field(value) for value in row.values()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(row), fields])
    return text.getvalue()


def _field(value: float | str | bool) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _line_example(release: Release | None) -> str | None:
    """The same, as JSON in a line."""
    return msgspec.json.encode(release.example[0]).decode() + "\n" if release and release.example else None


def _tensors(release: Release) -> dict[str, Any] | None:
    """The same, a tensor for each column."""
    if not release.example:
        return None
    described = describe_inputs(release)
    (row,) = msgspec.to_builtins(release.example[:1])
    return {"inputs": [{**tensor, "shape": [1, 1], "data": [row.get(tensor["name"])]} for tensor in described]}


def _invoke(release: Release | None) -> dict[str, Any]:
    split = object_of({"columns": array_of(_TEXT), "data": array_of({"type": "array"})}, index={"type": "array"})
    forms = {
        "dataframe_split": split,
        "dataframe_records": array_of(_row(release)),
        "instances": {"type": "array"},
        "inputs": {"type": ["array", "object"]},
    }
    asked = {
        "type": "object",
        "oneOf": [{"required": [form]} for form in forms],
        "properties": {**forms, "params": object_of({}, output=_TEXT)},
    }
    kinds = {"text/csv": "MLflow: with a header; SageMaker: without", "application/jsonlines": "a row in each line"}
    written = {"text/csv": _csv_example(release), "application/jsonlines": _line_example(release)}
    texts = {kind: content({**_TEXT, "description": told}, written[kind], kind)[kind] for kind, told in kinds.items()}
    return operation(
        _summary(release),
        "MLflow, SageMaker",
        object_of({"predictions": _outputs(release)}),
        asked={**content(asked, _example(release, "dataframe_records")), **texts},
        error=_MLFLOW_ERROR,
    )


def _vertex(release: Release | None) -> dict[str, Any]:
    asked = object_of({"instances": array_of(_row(release))}, parameters=object_of({}, output=_TEXT))
    return operation(
        _summary(release),
        "Vertex AI",
        object_of({"predictions": _outputs(release)}),
        asked=content(asked, _example(release, "instances")),
        error=_SIMPLE_ERROR,
    )


def _probe(summary: str) -> dict[str, Any]:
    return operation(summary, "MLflow, SageMaker", {}, error=_MLFLOW_ERROR)
