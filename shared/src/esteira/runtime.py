"""A release brought to life: raw rows in, scores out.

The predictor answers with it, the trainer proves parity with it, and whoever holds a release folder scores offline
with the very same code.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from esteira.exceptions import BadInput, PipelineInvalid, Problem, ReleaseRefused
from esteira.explanation import Explainer, Explanation
from esteira.profile import Profile
from esteira.release import EXPLANATION, MODEL, PROFILE, REFERENCE, TREES, Example
from esteira.release_files import read_manifest, verify, verify_files
from esteira.schema import Row, Value, check_row
from esteira.scoring import Array, Model, OnnxModel, Task
from esteira.sqlite_json import JsonQuery
from esteira.sqlite_query import Undecided, opener
from esteira.trees import TreesModel

if TYPE_CHECKING:
    from esteira.features import FeatureQuery

SMOKE_TOLERANCE = 1e-9


class ReleaseRuntime:
    """A loaded release. Safe to share by threads."""

    def __init__(self, folder: Path, manifest_sha256: str | None = None) -> None:
        """Loads the release in `folder` and proves that it works.

        Args:
            folder: holds release.json and the files that it names.
            manifest_sha256: what the pointer says of release.json.

        Raises:
            ReleaseRefused: a file is missing or changed, or the model does not answer as it did when it was released.
        """
        self.release = read_manifest(folder, manifest_sha256)
        verify_files(folder, self.release)
        self._folder = folder
        self.model = self._load_model()
        self._lock = Lock()
        self._query: FeatureQuery | None = None
        try:
            self.single = self._make_single()
            self._smoke_test()
        except BadInput as error:  # its message repeats values of the example
            raise ReleaseRefused(f"features.sql of release {self.release.version} fails on its example rows") from error
        except (PipelineInvalid, Undecided) as error:
            raise ReleaseRefused(f"features.sql of release {self.release.version} does not run: {error}") from error

    def _load_model(self) -> Model:
        """What serves: the trees where the release has them, and ONNX Runtime is not even imported."""
        task: Task = "binary" if self.release.task == "classification" else "regression"
        if TREES in self.release.files:
            return TreesModel((self._folder / TREES).read_bytes(), task, self.release.features)
        return OnnxModel((self._folder / MODEL).read_bytes(), task, self.release.features)

    @property
    def query(self) -> "FeatureQuery":
        """features.sql in DuckDB, which is loaded at the first use: a release with a SQLite form seldom needs it.

        Raises:
            PipelineInvalid: DuckDB does not take the statement, or a reference table.
        """
        with self._lock:
            if self._query is None:
                self._query = self._make_query()
            return self._query

    def _make_query(self) -> "FeatureQuery":
        from esteira.features import FeatureQuery

        references = {name: self._folder / file for name, file in self.release.reference.items()}
        return FeatureQuery(self.release.statement, self.release.columns, references)

    def _make_single(self) -> JsonQuery | None:
        """The SQLite form of features.sql, where the release has one."""
        form = self.release.form.statement
        if form is None:
            return None
        columns = [column for column in self.release.columns if column.known == "before"]
        wanted = [feature.name for feature in self.release.features]
        single = JsonQuery(form, columns, opener(self._folder / REFERENCE), wanted)
        self._arrange = picker([single.names.index(name) for name in wanted])
        return single

    def features(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Runs features.sql over typed raw rows; the values are not yet encoded."""
        return self.query.run(rows)

    def feature_rows(self, rows: Sequence[Sequence[Value]]) -> list[tuple[Any, ...]]:
        """Runs features.sql over rows of typed values, in the order of the columns that are known before.

        Returns:
            For each row its features, in the order of the release's, not yet encoded.
        """
        if self.single is not None:
            with suppress(Undecided):
                return [*map(self._arrange, self.single.run_rows(rows))]
        names, found = self.query.run_rows(rows)
        order = [names.index(feature.name) for feature in self.release.features]
        return [tuple(row[at] for at in order) for row in found]

    def feature_json(self, rows: Sequence[Sequence[Value]]) -> bytes | None:
        """`feature_rows` as JSON, `[[value, …], …]`; None where only that can give them, or say what is wrong."""
        try:
            return self.single.run_json(rows) if self.single is not None else None
        except Undecided:
            return None

    def score_rows(self, rows: Sequence[Sequence[Any]]) -> Array:
        """Scores rows of features, in the order of the release's: the same bits as `score` of their columns."""
        return self.model.score(self.model.encoder.encode_rows(rows))

    def score(self, features: dict[str, list[Any]]) -> Array:
        """Scores feature columns, shape (rows,): probability of the label being true, or the predicted value."""
        return self.model.score(self.model.encoder.encode(features))

    @cached_property
    def explainer(self) -> Explainer | None:
        """What explains this release's scores, loaded when it is first asked for; None where it carries nothing.

        Raises:
            ReleaseRefused: the file was changed since the release was loaded, or does not fit it.
        """
        if EXPLANATION not in self.release.files:
            return None
        verify(self._folder / EXPLANATION, self.release.files[EXPLANATION].sha256)
        return Explainer((self._folder / EXPLANATION).read_bytes(), self.release.features)

    def explain_rows(self, matrix: Array) -> list[Explanation]:
        """Explains the raw scores of rows of shape (rows, features), made by the model's encoder.

        Raises:
            BadInput: this release carries no explanations.
        """
        if self.explainer is None:
            problem = f"release {self.release.version} carries no explanations; leave `explain` out"
            raise BadInput([Problem("explain", problem)])
        return self.explainer.explain_rows(matrix)

    def profile(self) -> Profile:
        """The reference profile of this release."""
        return msgspec.json.decode((self._folder / PROFILE).read_bytes(), type=Profile)

    def close(self) -> None:
        """Gives the memory back."""
        with self._lock:
            if self._query is not None:
                self._query.close()

    def _smoke_test(self) -> None:
        rows = [tuple(self._typed_example(row).values()) for row in self.release.example]
        scores = self.score_rows(self.feature_rows(rows)) if rows else np.empty(0)
        expected = np.array(self.release.example_scores)
        if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=0, atol=SMOKE_TOLERANCE):
            raise ReleaseRefused(
                f"release {self.release.version} answers {scores.tolist()} to its example rows, "
                f"it was released with {expected.tolist()}; release it again"
            )

    def _typed_example(self, row: Example) -> Row:
        typed, problems = check_row(self.release.columns, row, "example")
        if problems:
            place = problems[0].path
            raise ReleaseRefused(f"{place} of release {self.release.version} breaks its own schema; release it again")
        return typed


def picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Gives the values of a row at these positions, in their order."""
    if len(positions) == 1:
        return lambda row: (row[positions[0]],)
    return itemgetter(*positions)
