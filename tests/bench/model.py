"""The model that every side serves, as Esteira's trainer releases it and as scikit-learn's users have it."""

from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from esteira.profile import SCORE, Profile, describe_categorical, describe_numeric
from esteira.release import MODEL, PROFILE, REFERENCE, STATEMENT, TREES, Dataset, FeatureForm, Release
from esteira.schema import Column
from esteira.sqlite_form import translate
from esteira.sqlite_query import connect
from releases import MOMENT, BuiltRelease, write_manifest
from releases import _hash_files as hash_files
from trainer.export import export_model, export_trees
from trainer.learners import build_pipeline, encode_frame, fit, learn_features, predict_scores
from trainer.serving_form import prove_form

PARAMS = {"max_iter": 200, "early_stopping": False}
CATEGORIES = {"carrier": 16, "origin": 3, "dest": 105}


def make_frame(rows: int, numbers: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, a tenth of them missing, and three categories."""
    random = np.random.default_rng(7)
    values = random.normal(size=(rows, numbers))
    target = (values[:, 0] + values[:, 1] * values[:, 2] + random.normal(size=rows) > 0).astype(float)
    values[random.random(values.shape) < 0.1] = np.nan
    codes = {
        name: [f"{name}-{code:03}" for code in random.integers(count, size=rows)] for name, count in CATEGORIES.items()
    }
    numeric = pd.DataFrame(values, columns=[f"number_{i}" for i in range(numbers)])
    return pd.concat([numeric, pd.DataFrame(codes)], axis=1), target


class Model:
    """Histogram gradient boosting on made rows.

    Args:
        name: of the pipeline.
        numbers: how many numeric columns there are beside the three categories.
        rows: of its training data.
    """

    def __init__(self, name: str = "bench", numbers: int = 17, rows: int = 20_000) -> None:
        self.name = name
        self.frame, self.target = make_frame(rows, numbers)
        kinds = {name: "numeric" if name.startswith("number") else "categorical" for name in self.frame}
        self.features = learn_features(self.frame, kinds)
        self.matrix = encode_frame(self.features, self.frame)
        learner = build_pipeline("hist_gradient_boosting", self.features, "binary", PARAMS)
        self.estimator = fit(learner, self.features, self.matrix, self.target)
        self.scores = predict_scores(self.estimator, self.matrix, "binary")

    @cached_property
    def pipeline(self) -> Any:
        """A pipeline on DataFrames with the same estimator, fitted on the same rows: what the peers serve.

        Raises:
            AssertionError: its scores are not those of Esteira's estimator.
        """
        encoder = make_column_transformer((OrdinalEncoder(), list(CATEGORIES)), remainder="passthrough")
        learner = HistGradientBoostingClassifier(**PARAMS, random_state=0, categorical_features=[0, 1, 2])
        fitted = make_pipeline(encoder, learner).fit(self.frame, self.target)
        np.testing.assert_allclose(fitted.predict_proba(self.frame[:1000])[:, 1], self.scores[:1000], rtol=1e-12)
        return fitted

    def values(self, count: int) -> list[list[Any]]:
        """Rows of values as JSON has them."""
        rows = self.frame[:count].itertuples(index=False, name=None)
        return [[None if value != value else value for value in row] for row in rows]

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Feature rows by name."""
        return [dict(zip(self.frame, values, strict=True)) for values in self.values(count)]

    def raw_rows(self, count: int) -> list[dict[str, Any]]:
        """Raw rows, from which features.sql makes the features."""
        return [{"id": number, **row} for number, row in enumerate(self.rows(count))]

    def release(self, folder: Path, version: str = "v1") -> BuiltRelease:
        """As Esteira's trainer would release it."""
        home = folder / self.name / version
        home.mkdir(parents=True)
        (home / MODEL).write_bytes(export_model(self.estimator, self.features, "binary"))
        (home / TREES).write_bytes(export_trees(self.estimator, self.features, "binary"))
        (home / STATEMENT).write_text("SELECT ...")
        binned = [
            (describe_numeric if f.kind == "numeric" else describe_categorical)(f.name, self.frame[f.name].tolist())
            for f in self.features
        ]
        profile = Profile(features=binned, score=describe_numeric(SCORE, self.scores), rows=len(self.frame))
        (home / PROFILE).write_bytes(msgspec.json.encode(profile))
        release = self._describe(version, {})
        columns = [column for column in release.columns if column.known == "before"]
        connect(str(home / REFERENCE)).close()  # no reference tables
        form = FeatureForm(dialect="sqlite", statement=translate(release.statement, columns))
        form = prove_form(home, release, form)
        assert form.statement is not None, form.reason
        release = msgspec.structs.replace(release, form=form, files=hash_files(home))
        return BuiltRelease(home, release, write_manifest(home, release), self.estimator, "binary")

    def _describe(self, version: str, files: Any) -> Release:
        kinds = {"numeric": "number", "categorical": "string"}
        columns = [Column(name=f.name, type=kinds[f.kind], nullable=True) for f in self.features]  # type: ignore[arg-type]
        named = ", ".join(f'raw."{f.name}"' for f in self.features)
        rows = len(self.frame)
        return Release(
            pipeline=self.name,
            version=version,
            task="classification",
            created_at=MOMENT,
            label="late",
            entity=["id"],
            event_time=None,
            columns=[Column(name="id", type="integer"), *columns],
            features=self.features,
            statement=f"SELECT raw._row AS _row, {named} FROM raw",
            reference={},
            learner="hist_gradient_boosting",
            threshold=0.5,
            metrics={},
            gates=[],
            dataset=Dataset(number=1, version="0" * 16, manifest="m", rows=rows, labelled=rows),
            training_run_id="run",
            mlflow_run_id=None,
            code_version="bench",
            seed=0,
            example=self.raw_rows(3),
            example_scores=self.scores[:3].tolist(),
            files=files,
        )
