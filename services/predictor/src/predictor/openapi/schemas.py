"""JSON Schemas of a release's rows and answers, and the parts that every operation has."""

from collections.abc import Mapping, Sequence
from typing import Any

from esteira.release import Release
from esteira.schema import MAX_STRING, Column

JSON = "application/json"
_TYPES: dict[str, dict[str, Any]] = {
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "problems"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "problems": {"type": "array", "items": PROBLEM},
                "more": {"type": "integer", "description": "problems besides, which are not named; absent if none"},
            },
        }
    },
}
KEY = {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "drawn by `esteira key`"}
TOKEN = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "an identity token of Google"}
EXPLANATION: dict[str, Any] = {
    "type": "object",
    "description": "of the score before its link; base and contributions sum to it",
    "properties": {
        "base": {"type": "number"},
        "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}


def row_schema(columns: Sequence[Column]) -> dict[str, Any]:
    """One raw row."""
    return {
        "type": "object",
        "properties": {column.name: column_schema(column) for column in columns},
        "required": [column.name for column in columns if not column.nullable],
        "additionalProperties": False,
    }


def column_schema(column: Column) -> dict[str, Any]:
    """One column's value."""
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


def features_schema(release: Release) -> dict[str, Any]:
    """One row of features."""
    types: dict[str, dict[str, Any]] = {
        "numeric": {"type": ["number", "null"]},
        "categorical": {"type": ["string", "null"], "maxLength": MAX_STRING},
    }
    properties = {feature.name: types[feature.kind] for feature in release.features}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def answer_schema(release: Release) -> dict[str, Any]:
    """What is answered for one row."""
    properties: dict[str, Any] = {"prediction_id": {"type": "string", "format": "uuid"}, "score": {"type": "number"}}
    properties["explanation"] = EXPLANATION
    if release.threshold is not None:
        properties["label"] = {"type": "boolean", "description": f"score >= {release.threshold}"}
    return {"type": "object", "required": ["prediction_id", "score"], "properties": properties}


def object_of(required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these members and no rule about others."""
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def array_of(items: Mapping[str, Any]) -> dict[str, Any]:
    """An array."""
    return {"type": "array", "items": dict(items)}


def content(schema: Mapping[str, Any], example: Any = None, kind: str = JSON) -> dict[str, Any]:
    """A body of one media type."""
    return {kind: {"schema": dict(schema), **({} if example is None else {"example": example})}}


def response(description: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An answer; without a body where there is nothing to say of it."""
    return {"description": description, **({"content": dict(body)} if body else {})}


def operation(
    summary: str,
    tag: str,
    answer: Mapping[str, Any],
    *,
    asked: Mapping[str, Any] | None = None,
    status: str = "200",
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One method of a path.

    Args:
        summary: what it does.
        tag: the group that it is shown in.
        answer: schema of what it answers if all is well.
        asked: media types of the request's body; None where it has none.
        status: of that answer.
        error: schema of what it answers otherwise; by default the error of the native routes.
    """
    failed = content(error or {"$ref": "#/components/schemas/Error"})
    body = {"requestBody": {"required": True, "content": dict(asked)}} if asked else {}
    responses = {status: response("as asked", content(answer)), "default": response("an error", failed)}
    return {"summary": summary, "tags": [tag], **body, "responses": responses}
