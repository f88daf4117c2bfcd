"""A pipeline as its folder describes it: `pipelines/<name>/pipeline.yaml` and what lies beside it.

Every mistake is reported as `file:line: what is wrong; what to do`.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from esteira.exceptions import PipelineInvalid, UnknownPipeline
from esteira.schema import Column, ColumnType

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Task = Literal["classification", "regression"]
Learner = Literal["hist_gradient_boosting", "linear"]


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
    null_values: tuple[str, ...] = ("", "NA")
    """How files write a missing value."""
    reference: dict[str, Reference] = {}
    training: Training = Training()
    gates: Gates = Gates()
    promotion: Literal["auto", "manual"] = "auto"
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
    document = _Document(folder / "pipeline.yaml")
    spec = document.convert()
    columns = [document.column(name) for name in spec.columns]
    _check_names(document, spec, columns, folder)
    statement = folder / "features.sql"
    if not statement.is_file():
        raise PipelineInvalid(f"{statement}: missing; write one SELECT from raw that names each feature")
    return LoadedPipeline(
        name=spec.pipeline, folder=folder, spec=spec, columns=columns, features_sql=statement.read_text("utf-8")
    )


class _Document:
    """A YAML file that knows on which line each value stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            root = yaml.compose(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
        except FileNotFoundError:
            raise PipelineInvalid(
                f"{path}: missing; a pipeline is a folder with pipeline.yaml and features.sql"
            ) from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise PipelineInvalid(
                f"{path}:{line}: not YAML: {error.problem}; mend the indentation or quoting"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PipelineInvalid(f"{path}:1: not YAML: {error}; save it as UTF-8 text") from error
        if not isinstance(root, yaml.MappingNode):
            raise PipelineInvalid(f"{path}:1: expected a mapping of keys, such as `pipeline: {path.parent.name}`")
        self._root = root
        self._refuse_repeated_keys(root)
        self.content: dict[str, Any] = yaml.CSafeLoader("").construct_document(root)

    def convert(self) -> Pipeline:
        try:
            return msgspec.convert(self.content, Pipeline)
        except msgspec.ValidationError as error:
            raise self._invalid(error, []) from error

    def column(self, name: str) -> Column:
        rules = self.content["columns"][name]
        try:
            return msgspec.convert({**rules, "name": name}, Column)
        except msgspec.ValidationError as error:
            raise self._invalid(error, ["columns", name]) from error

    def line(self, *keys: str) -> int:
        """The line of the value at `keys`, or of the nearest part above it that exists, from 1."""
        node: yaml.Node = self._root
        line: int = node.start_mark.line
        for key in keys:
            found = self._child(node, key)
            if found is None:
                break
            line, node = found
        return line + 1

    def error(self, message: str, *keys: str) -> PipelineInvalid:
        return PipelineInvalid(f"{self.path}:{self.line(*keys)}: {message}")

    @staticmethod
    def _child(node: yaml.Node, key: str) -> tuple[int, yaml.Node] | None:
        if isinstance(node, yaml.MappingNode):
            return next(((name.start_mark.line, value) for name, value in node.value if name.value == key), None)
        if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            return node.value[int(key)].start_mark.line, node.value[int(key)]
        return None

    def _invalid(self, error: msgspec.ValidationError, above: list[str]) -> PipelineInvalid:
        """Translates `Expected `int`, got `str` - at `$.a[0].b`` into file, line, key and what to do."""
        what, _, where = str(error).partition(" - at ")
        keys = above + re.findall(r"[^.\[\]`$]+", where)
        unknown = re.search(r"unknown field `(.+)`", what)
        if unknown:
            return self.error(f"unknown key {unknown[1]!r}; remove it or mend its spelling", *keys, unknown[1])
        missing = re.search(r"missing required field `(.+)`", what)
        if missing:
            return self.error(f"{'.'.join(keys) or 'the file'} lacks the key {missing[1]!r}; add it", *keys)
        return self.error(f"{'.'.join(keys)}: {what[0].lower()}{what[1:]}; mend the value", *keys)

    def _refuse_repeated_keys(self, node: yaml.Node) -> None:
        """YAML would keep the last of two equal keys and say nothing."""
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._refuse_repeated_keys(item)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise PipelineInvalid(f"{self.path}:{line}: the key {key.value!r} stands twice; remove one")
                seen.add(key.value)
                self._refuse_repeated_keys(value)


def _check_names(document: _Document, spec: Pipeline, columns: list[Column], folder: Path) -> None:
    """Holds names against one another: what the types alone cannot say."""
    if spec.pipeline != folder.name:
        raise document.error(
            f"pipeline is {spec.pipeline!r} but its folder {folder.name!r}; make them equal", "pipeline"
        )
    by_name = {column.name: column for column in columns}
    for position, name in enumerate(spec.entity):
        if name not in by_name:
            raise document.error(f"entity names {name!r}, which is no column; declare it", "entity", str(position))
        _check_key_column(document, by_name[name], position)
    _check_event_time(document, spec, by_name)
    for name, reference in spec.reference.items():
        if name == "raw" or not (folder / reference.file).is_file():
            raise document.error(f"reference {name}: no file {reference.file}; add it", "reference", name, "file")


def _check_key_column(document: _Document, column: Column, position: int) -> None:
    if column.type == "number":
        raise document.error(
            f"{column.name} is a number and cannot identify a row; use another type", "entity", str(position)
        )
    if column.nullable or column.known == "after":
        raise document.error(
            f"{column.name} identifies a row: it must be known before and not nullable", "columns", column.name
        )


def _check_event_time(document: _Document, spec: Pipeline, by_name: dict[str, Column]) -> None:
    if spec.event_time is not None:
        column = by_name.get(spec.event_time)
        if column is None or column.type != "timestamp" or column.nullable or column.known == "after":
            raise document.error("event_time must name a timestamp column, known before, not nullable", "event_time")
    if spec.event_time is None and spec.training.holdout.by == "day":
        raise document.error("a holdout by day needs an event_time", "training", "holdout", "by")
