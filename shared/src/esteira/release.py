"""What a release is made of, as `release.json` lists it, and the pointer that says which one serves.

A release is a folder in the bucket, `releases/<pipeline>/<version>/`, complete once its `release.json` is there. It
holds everything that serving needs; every other file in it is named by `release.json` with size and sha256.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from esteira.fields import NULL_VALUES
from esteira.redaction import ColumnRule, Redaction
from esteira.schema import Column, Feature

MODEL = "model.onnx"
TREES = "trees.npz"
"""Only where the learner is a sum of trees: then this serves, not `MODEL`."""
ESTIMATOR = "model.skops"
STATEMENT = "features.sql"
PROFILE = "profile.json"
EXPLANATION = "explanation.npz"
"""Only where the learner can be explained."""
MANIFEST = "release.json"
REFERENCE = "reference.sqlite"


Example = dict[str, int | float | str | bool | None]
"""A raw row in the form that JSON has, times as text."""


class File(msgspec.Struct, frozen=True):
    """A file of the release."""

    sha256: str
    size: int


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One condition that the release had to meet, with its figure."""

    name: str
    value: float | None
    threshold: float | None
    passed: bool
    detail: str = ""


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset version that the model was fitted on."""

    number: int
    version: str
    manifest: str
    rows: int
    labelled: int


class FeatureForm(msgspec.Struct, frozen=True, kw_only=True):
    """In which form features.sql serves, and what that rests on."""

    dialect: Literal["duckdb", "sqlite"] = "duckdb"
    """With `sqlite`, DuckDB still takes what the SQLite form leaves to it: see `esteira.sqlite_query`."""
    statement: str | None = None
    """The SQLite form, over the reference tables in reference.sqlite."""
    rows: int = 0
    """Rows of the dataset for which it gave what DuckDB gave."""
    stress_rows: int = 0
    """Made-up rows for which it did."""
    reason: str = ""
    """Why there is no SQLite form."""


class LogRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a pipeline's predictions are logged.

    A predictor that does not know a rule refuses the release: better none than one that logs what it must not.
    """

    delivery: Literal["spooled", "strict"] = "spooled"
    """`spooled`: on disk before the answer, published soon after. `strict`: published before the answer."""
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Of predictions, whose raw row is kept; the predictor's own `SAMPLE_SHARE` if not set."""
    columns: dict[str, ColumnRule] = {}
    """Raw columns and features that are not logged as they are; a feature that derives from such a column is not
    either, unless its own rule says `always`."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """The content of release.json."""

    pipeline: str
    version: str
    task: Literal["classification", "regression"]
    created_at: datetime
    label: str
    entity: list[str]
    event_time: str | None
    columns: list[Column]
    """The raw columns of a request, without those known only after."""
    features: list[Feature]
    """In the order of the model's input."""
    statement: str
    """features.sql with the row key in its select list, as `esteira.statement` compiles it; DuckDB dialect."""
    reference: dict[str, str]
    """Reference tables, by name: the Parquet file of each within the release."""
    learner: str
    threshold: float | None
    """The score from which the label is true; None for regression."""
    metrics: dict[str, float]
    """On the held-out rows."""
    gates: list[Gate]
    dataset: Dataset
    training_run_id: str
    mlflow_run_id: str | None
    code_version: str
    seed: int
    example: list[Example]
    """Rows that a request may hold, for documentation and for a smoke prediction."""
    example_scores: list[float]
    """What scikit-learn answered for `example`."""
    files: dict[str, File]
    parameters: dict[str, Any] = {}
    form: FeatureForm = FeatureForm()
    prediction_log: LogRules = LogRules()
    null_values: tuple[str, ...] = NULL_VALUES
    """Texts that mean a missing value where rows come as CSV, as in the files that the model was trained on."""
    redaction: Redaction = Redaction()
    """What `prediction_log.columns` means for each raw column and feature."""


class Challenger(msgspec.Struct, frozen=True, kw_only=True):
    """The release that is tried out beside the champion: by a canary, or in its shadow."""

    version: str
    path: str
    sha256: str
    """Of the release's release.json."""
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    """Of entities that it answers for; of a shadow, whose requests it scores too."""
    reason: str = ""
    """Why it is tried out; empty in pointers of before."""


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `serving/<pipeline>.json`: a projection of the promotion ledger."""

    pipeline: str
    generation: int
    """Of the newest promotion, canaries included."""
    version: str
    path: str
    sha256: str
    """Of the release's release.json."""
    promoted_at: datetime
    reason: str = ""
    """Why it was promoted; empty in pointers of before."""
    challenger: Challenger | None = None
    """While a canary runs."""
    shadow: Challenger | None = None
    """While a shadow runs; apart from `challenger`, so that code which knows no shadows never answers with one."""

    @property
    def tried(self) -> Challenger | None:
        """The release that is tried out, in either way: there is one at a time."""
        return self.challenger or self.shadow


def release_path(pipeline: str, version: str) -> str:
    """The release's folder in the bucket, with a slash at its end."""
    return f"releases/{pipeline}/{version}/"


def pointer_path(pipeline: str) -> str:
    """Where the pointer of the pipeline lies in the bucket."""
    return f"serving/{pipeline}.json"
