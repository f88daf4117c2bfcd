"""The OpenAPI 3.1 description of the API, made from the releases in service."""

from collections.abc import Sequence
from typing import Any

from esteira.release import Release
from esteira.schema import Column

_TYPES: dict[str, dict[str, Any]] = {
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
}
_EXPLAIN = {"type": "boolean", "default": False, "description": "say what each feature contributes to the score"}
_EXPLANATION: dict[str, Any] = {
    "type": "object",
    "description": "of the score before its link; base and contributions sum to it",
    "properties": {
        "base": {"type": "number"},
        "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "problems"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "problems": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
        }
    },
}


def make_openapi(releases: Sequence[Release], server: str) -> dict[str, Any]:
    """Describes predict and feedback of each pipeline, with an example that works."""
    paths: dict[str, Any] = {}
    for release in releases:
        paths[f"/pipelines/{release.pipeline}/predict"] = {"post": _predict(release)}
        paths[f"/pipelines/{release.pipeline}/feedback"] = {"post": _feedback(release)}
        paths[f"/pipelines/{release.pipeline}"] = {"get": _get(f"Schema and champion of {release.pipeline}", release)}
    paths["/pipelines"] = {"get": {"summary": "The pipelines served here", "responses": {"200": _json({})}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Esteira predictor", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


def _predict(release: Release) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "maxItems": 1000, "items": row_schema(release.columns)}
    body = {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows, "explain": _EXPLAIN},
        "additionalProperties": False,
    }
    answer = {
        "type": "object",
        "properties": {
            "pipeline": {"type": "string"},
            "model_version": {"type": "string"},
            "predictions": {"type": "array", "items": _answer(release)},
        },
    }
    return _operation(f"Predict {release.label}", release, body, {"rows": release.example[:1]}, "200", answer)


def _feedback(release: Release) -> dict[str, Any]:
    columns = [column for column in release.columns if column.name in release.entity]
    outcome = {
        "type": "object",
        "required": ["entity", "label"],
        "properties": {"entity": row_schema(columns), "label": {"type": ["number", "boolean"]}},
    }
    body = {"type": "object", "required": ["outcomes"], "properties": {"outcomes": {"type": "array", "items": outcome}}}
    example = {
        "outcomes": [
            {"entity": {name: row[name] for name in release.entity}, "label": 1} for row in release.example[:1]
        ]
    }
    answer = {"type": "object", "properties": {"accepted": {"type": "integer"}}}
    return _operation(f"Say what became of {release.label}", release, body, example, "202", answer)


def _operation(
    summary: str, release: Release, body: dict[str, Any], example: Any, status: str, answer: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": [release.pipeline],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": {status: _json(answer), "default": _json({"$ref": "#/components/schemas/Error"})},
    }


def _get(summary: str, release: Release) -> dict[str, Any]:
    return {"summary": summary, "tags": [release.pipeline], "responses": {"200": _json({})}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "JSON", "content": {"application/json": {"schema": schema}}}


def _answer(release: Release) -> dict[str, Any]:
    properties: dict[str, Any] = {"prediction_id": {"type": "string", "format": "uuid"}, "score": {"type": "number"}}
    properties["explanation"] = _EXPLANATION
    if release.threshold is not None:
        properties["label"] = {"type": "boolean", "description": f"score >= {release.threshold}"}
    return {"type": "object", "properties": properties}


def row_schema(columns: Sequence[Column]) -> dict[str, Any]:
    """The JSON Schema of one raw row."""
    return {
        "type": "object",
        "properties": {column.name: column_schema(column) for column in columns},
        "required": [column.name for column in columns if not column.nullable],
        "additionalProperties": False,
    }


def column_schema(column: Column) -> dict[str, Any]:
    """The JSON Schema of one column's value."""
    schema = dict(_TYPES[column.type])
    if column.nullable:
        schema["type"] = [schema["type"], "null"]
    if column.min is not None:
        schema["minimum"] = column.min
    if column.max is not None:
        schema["maximum"] = column.max
    if column.values is not None:
        schema["enum"] = [*column.values, None] if column.nullable else column.values
    if column.type == "string":
        schema["maxLength"] = column.max_length
    return schema
