"""A pipeline as its folder describes it: `pipelines/<name>/pipeline.yaml` and what lies beside it.

Every mistake is reported as `file:line: what is wrong; what to do`.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from esteira.exceptions import PipelineInvalid, UnknownPipeline
from esteira.fields import NULL_VALUES
from esteira.log_rules import check_forms, check_rules
from esteira.release import LogRules
from esteira.schema import Column, ColumnType
from esteira.yaml_document import YamlDocument

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Task = Literal["classification", "regression"]
Learner = Literal["hist_gradient_boosting", "linear"]
REFERENCE_SUFFIXES = (".csv", ".csv.gz", ".parquet")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of pipeline.yaml: keys that it does not know are mistakes."""


class Label(Section, frozen=True, kw_only=True):
    """What the model predicts."""

    name: str
    sql: str
    """A DuckDB expression over the raw columns: boolean for classification, else a number; NULL where unknown."""


class Reference(Section, frozen=True, kw_only=True):
    """A small lookup table that features.sql joins."""

    file: str
    """A .csv, .csv.gz or .parquet file, relative to the pipeline's folder."""
    columns: dict[str, ColumnType] = {}
    """The types of a CSV file's columns, all of them, in the file's order; a Parquet file brings its own."""


class Holdout(Section, frozen=True, kw_only=True):
    """Rows that no model of this pipeline is ever fitted on."""

    share: Share = 0.2
    by: Literal["entity", "day"] = "entity"
    """What is held out whole, chosen by a stable hash: single entities, or all rows of a day of the event time."""


class Training(Section, frozen=True, kw_only=True):
    """How models are fitted."""

    learners: Annotated[tuple[Learner, ...], msgspec.Meta(min_length=1)] = ("hist_gradient_boosting", "linear")
    params: dict[Learner, dict[str, Any]] = {}
    """The estimator's parameters, for each learner."""
    holdout: Holdout = Holdout()
    min_rows: Positive = 200
    """Labelled rows below which nothing is trained."""
    seed: int = 0


class Gates(Section, frozen=True, kw_only=True):
    """What a challenger must show on the held-out rows before it is released."""

    min_gain_over_baseline: NotNegative = 0.01
    """In units of the main metric: AUC above 0.5, or the share of variance explained."""
    max_loss_to_champion: NotNegative = 0.0
    """How far below the champion the challenger's main metric may be, at the confidence below."""
    confidence: Share = 0.95
    slices: list[str] = []
    """Features whose every value is compared on its own."""
    max_slice_loss: NotNegative = 0.05
    max_calibration_error: NotNegative = 0.1
    """Expected calibration error, classification only."""


class Monitoring(Section, frozen=True, kw_only=True):
    """What is measured on live predictions, and when it is too much."""

    window: Literal["hour", "day", "week", "month"] = "day"
    """The calendar span of event time (or serving time) that is judged as one."""
    min_outcomes: Positive = 200
    """Labelled predictions below which a window's performance is not judged."""
    psi_warning: NotNegative = 0.1
    psi_alarm: NotNegative = 0.25
    """Population stability index at which a feature's drift is a warning, or an alarm."""
    confidence: Share = 0.95


class Retraining(Section, frozen=True, kw_only=True):
    """When the evidence asks for a new model."""

    automatic: bool = True
    max_performance_loss: NotNegative = 0.01
    """How far the main metric of a window may fall below the champion's own on its holdout, at the confidence above."""
    max_calibration_bias: NotNegative = 0.1
    """How far the mean score may be off the mean label, relative to the mean label, at the confidence above."""
    min_new_rows: Share = 0.05
    """New labelled rows since the champion's dataset version, as a share of it, below which retraining is pointless."""


class Canary(Section, frozen=True, kw_only=True):
    """How a challenger is tried out on live requests, by canary or as a shadow, and when that is enough."""

    share: Share = 0.1
    """Of entities that the challenger answers for, or scores in the champion's shadow."""
    min_predictions: Positive = 200
    """Of each arm, below which nothing is concluded but that the challenger fails."""
    max_minutes: Positive = 60
    """After which a canary or shadow without enough predictions is rolled back."""
    max_failures: NotNegative = 0.01
    """The share of its rows that the challenger may fail to answer."""
    max_slowdown: NotNegative = 10.0
    """How many times the champion's mean time for a row the challenger may take."""
    max_score_psi: NotNegative = 0.25
    """How far the scores of the two arms may be apart, where outcomes are too few to tell which arm is right."""


class Pipeline(Section, frozen=True, kw_only=True):
    """Everything that pipeline.yaml says."""

    pipeline: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,39}$")]
    task: Task
    entity: Annotated[list[str], msgspec.Meta(min_length=1)]
    """The columns whose values together identify a row."""
    label: Label
    columns: dict[str, dict[str, Any]]
    event_time: str | None = None
    """The timestamp column that says when a row happened."""
    null_values: tuple[str, ...] = NULL_VALUES
    """How files write a missing value."""
    reference: dict[str, Reference] = {}
    training: Training = Training()
    gates: Gates = Gates()
    promotion: Literal["auto", "canary", "shadow", "manual"] = "auto"
    """What becomes of a release that passes its gates: champion at once, challenger of the champion by canary or in
    its shadow, or a person's."""
    canary: Canary = Canary()
    prediction_log: LogRules = LogRules()
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()


class LoadedPipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline with its columns typed and its statement read, ready to work with."""

    name: str
    folder: Path
    spec: Pipeline
    columns: list[Column]
    features_sql: str
    """The text of features.sql."""

    @property
    def entity_columns(self) -> list[Column]:
        """The columns of the entity key, in the order of `entity`."""
        by_name = {column.name: column for column in self.columns}
        return [by_name[name] for name in self.spec.entity]


def load_pipelines(directory: Path) -> dict[str, LoadedPipeline]:
    """Loads every pipeline below `directory`.

    Raises:
        PipelineInvalid: one of them has a mistake, or there is no such directory.
    """
    if not directory.is_dir():
        raise PipelineInvalid(f"{directory}: no such directory; set PIPELINES_DIR to the folder of the pipelines")
    folders = sorted(path.parent for path in directory.glob("*/pipeline.yaml"))
    return {folder.name: load_pipeline(folder) for folder in folders}


def find_pipeline(pipelines: dict[str, LoadedPipeline], name: str) -> LoadedPipeline:
    """Looks a pipeline up by name.

    Raises:
        UnknownPipeline: there is none; the message lists those there are.
    """
    if name not in pipelines:
        known = ", ".join(sorted(pipelines)) or "none"
        raise UnknownPipeline(f"there is no pipeline {name!r}; known pipelines: {known}")
    return pipelines[name]


def load_pipeline(folder: Path) -> LoadedPipeline:
    """Loads the pipeline in `folder`.

    Raises:
        PipelineInvalid: with file, line, what is wrong and what to do.
    """
    document = YamlDocument(folder / "pipeline.yaml")
    check_forms(document)
    spec = document.convert(document.content, Pipeline)
    columns = [_column(document, name, rules) for name, rules in spec.columns.items()]
    _check_names(document, spec, columns, folder)
    return LoadedPipeline(
        name=spec.pipeline, folder=folder, spec=spec, columns=columns, features_sql=_read_statement(folder)
    )


def _read_statement(folder: Path) -> str:
    path = folder / "features.sql"
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise PipelineInvalid(f"{path}: missing; write one SELECT from raw that names each feature") from None
    except UnicodeDecodeError as error:
        raise PipelineInvalid(f"{path}:1: not text: {error}; save it as UTF-8") from error


def _column(document: YamlDocument, name: str, rules: dict[str, Any]) -> Column:
    if "name" in rules:
        raise document.error("unknown key 'name'; the column's name stands before its rules", "columns", name, "name")
    column = document.convert({**rules, "name": name}, Column, "columns", name)
    if not name or name.startswith("_"):
        raise document.error(f"column {name!r}: names do not begin with _; rename it", "columns", name)
    for rule, what in _broken_rules(column).items():
        raise document.error(f"{name}.{rule} {what}; mend the rule", "columns", name, rule)
    return column


def _broken_rules(column: Column) -> dict[str, str]:
    """Rules of a column that no value could meet, or that do not belong to its type."""
    broken: dict[str, str] = {}
    low, high = column.min, column.max
    for rule, bound in (("min", low), ("max", high)):
        if bound is not None and column.type not in ("integer", "number"):
            broken[rule] = f"is for numbers, and the column is of type {column.type}"
        elif bound is not None and not math.isfinite(bound):
            broken[rule] = "must be a finite number"
    if column.type == "integer" and low is not None and low >= 2**63:
        broken["min"] = "is above all integers of 64 bits"
    if column.type == "integer" and high is not None and high < -(2**63):
        broken["max"] = "is below all integers of 64 bits"
    if low is not None and high is not None and low > high:
        broken["min"] = f"is {low:g}, above the maximum {high:g}"
    if column.values is not None and (column.type != "string" or not column.values):
        broken["values"] = "is for strings, and lists at least one"
    if column.max_length < 1:
        broken["max_length"] = "must be at least 1"
    return broken


def _check_names(document: YamlDocument, spec: Pipeline, columns: list[Column], folder: Path) -> None:
    """Holds names against one another: what the types alone cannot say."""
    if spec.pipeline != folder.name:
        raise document.error(
            f"pipeline is {spec.pipeline!r} but its folder {folder.name!r}; make them equal", "pipeline"
        )
    _check_unique(document, [column.name for column in columns])
    by_name = {column.name: column for column in columns}
    for position, name in enumerate(spec.entity):
        if name not in by_name or name in spec.entity[:position]:
            why = "stands there twice; remove one" if name in by_name else "which is no column; declare it"
            raise document.error(f"entity names {name!r}, {why}", "entity", str(position))
        _check_key_column(document, by_name[name], position)
    _check_event_time(document, spec, by_name)
    _check_references(document, spec, folder)
    check_rules(document, spec.prediction_log.columns, by_name, spec.entity, spec.event_time)
    if spec.monitoring.psi_warning > spec.monitoring.psi_alarm:
        raise document.error("psi_warning is above psi_alarm; make it smaller", "monitoring", "psi_warning")


def _check_unique(document: YamlDocument, names: list[str]) -> None:
    """SQL does not tell `Price` from `price`."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise document.error(f"column {name!r} differs from another in case only; rename it", "columns", name)
        seen.add(name.lower())


def _check_references(document: YamlDocument, spec: Pipeline, folder: Path) -> None:
    for name, reference in spec.reference.items():
        if name.lower() == "raw":
            raise document.error("reference raw: `raw` are the raw rows; rename it", "reference", name)
        if not reference.file.endswith(REFERENCE_SUFFIXES):
            kinds = ", ".join(REFERENCE_SUFFIXES)
            raise document.error(f"reference {name}: use a file of kind {kinds}", "reference", name, "file")
        if not (folder / reference.file).is_file():
            raise document.error(f"reference {name}: no file {reference.file}; add it", "reference", name, "file")


def _check_key_column(document: YamlDocument, column: Column, position: int) -> None:
    if column.type == "number":
        raise document.error(
            f"{column.name} is a number and cannot identify a row; use another type", "entity", str(position)
        )
    if column.nullable or column.known == "after":
        raise document.error(
            f"{column.name} identifies a row: it must be known before and not nullable", "columns", column.name
        )


def _check_event_time(document: YamlDocument, spec: Pipeline, by_name: dict[str, Column]) -> None:
    if spec.event_time is not None:
        column = by_name.get(spec.event_time)
        if column is None or column.type != "timestamp" or column.nullable or column.known == "after":
            raise document.error("event_time must name a timestamp column, known before, not nullable", "event_time")
    if spec.event_time is None and spec.training.holdout.by == "day":
        raise document.error("a holdout by day needs an event_time", "training", "holdout", "by")
