"""The routes of Esteira's own API."""

from typing import Any

from esteira.release import Release
from predictor.decoding import MAX_ROWS
from predictor.dialects.rows import request_columns
from predictor.openapi.schemas import (
    answer_schema,
    array_of,
    content,
    features_schema,
    object_of,
    operation,
    row_schema,
)

_EXPLAIN = {"type": "boolean", "default": False, "description": "say what each feature contributes to the score"}
_ANY: dict[str, Any] = {"type": "object"}


def native_paths(release: Release) -> dict[str, Any]:
    """Predict and feedback of one pipeline, and what the predictor says of it."""
    name, base = release.pipeline, f"/pipelines/{release.pipeline}"
    return {
        base: {"get": operation(f"Schema, champion and challenger of {name}", name, _described())},
        f"{base}/predict": {"post": _predict(release)},
        f"{base}/feedback": {"post": _feedback(release)},
    }


def _described() -> dict[str, Any]:
    """What `handlers.describe` gives; of its members those that clients act on."""
    text, count = {"type": "string"}, {"type": "integer"}
    rows = object_of({"scored": count, "failed": count, "dropped": count})
    challenger = object_of(
        {
            "version": text,
            "mode": {
                "type": "string",
                "enum": ["canary", "shadow"],
                "description": "a shadow scores and never answers",
            },
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "reason": text,
            "serving": {"type": "boolean"},
            "refused": {"type": ["string", "null"]},
        },
        rows={**rows, "description": "of a shadow, in this worker"},
    )
    tried = {"anyOf": [challenger, {"type": "null"}], "description": "while a canary or shadow runs"}
    return object_of({"pipeline": text, "champion": object_of({"version": text}), "challenger": tried, "log": _ANY})


def common_paths() -> dict[str, Any]:
    """What is about no pipeline."""
    return {
        "/pipelines": {"get": operation("The pipelines served here", "service", array_of(_ANY))},
        "/health/live": {"get": operation("Whether the process lives", "service", _ANY)},
        "/health/ready": {"get": operation("Whether each pipeline is served", "service", _ANY)},
    }


def _predict(release: Release) -> dict[str, Any]:
    limits = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS}
    asked = {
        "type": "object",
        "oneOf": [{"required": ["rows"]}, {"required": ["features"]}],
        "properties": {
            "rows": {**limits, "items": row_schema(request_columns(release))},
            "features": {**limits, "items": features_schema(release)},
            "explain": _EXPLAIN,
        },
        "additionalProperties": False,
    }
    answer = object_of(
        {
            "pipeline": {"type": "string"},
            "model_version": {"type": "string"},
            "predictions": array_of(answer_schema(release)),
        }
    )
    example = {"rows": release.example[:1]} if release.example else None
    return operation(f"Predict {release.label}", release.pipeline, answer, asked=content(asked, example))


def _feedback(release: Release) -> dict[str, Any]:
    columns = [column for column in release.columns if column.name in release.entity]
    outcome = object_of(
        {"entity": row_schema(columns), "label": {"type": ["number", "boolean"]}},
        event_time={"type": ["string", "null"], "format": "date-time"},
    )
    entities = [{name: row[name] for name in release.entity} for row in release.example[:1]]
    label: bool | float = True if release.threshold is not None else 1.0
    asked = content(
        object_of({"outcomes": array_of(outcome)}),
        {"outcomes": [{"entity": entity, "label": label} for entity in entities]} if entities else None,
    )
    summary = f"Say what became of {release.label}"
    told = "The first outcome of an entity stays; another one is accepted and changes nothing."
    answer = object_of({"accepted": {"type": "integer"}})
    return operation(summary, release.pipeline, answer, asked=asked, status="202") | {"description": told}
