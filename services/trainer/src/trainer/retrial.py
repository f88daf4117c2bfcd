"""Trains with this code on the champion's dataset version, and holds the result against the champion on the same rows.

`python -m trainer.retrial --pipeline DIR --release DIR --stored DIR --data DIR --report OUT.json`: a check that a
change of this service, of a pipeline's folder or of what services share brings along for itself. It needs the files
alone: no Postgres, no MLflow, no bucket; it releases nothing and writes its report only.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pandas as pd

import trainer
from esteira.dataset import ENTITY, Manifest, decode_manifest
from esteira.exceptions import BadInput, PipelineInvalid, ReleaseRefused
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.promotions import PromotedRelease
from esteira.release import MANIFEST, Gate, Release
from esteira.runtime import ReleaseRuntime
from esteira.scoring import Array
from esteira.statement import Statement, compile_statement
from trainer import gates
from trainer.challenge import Defender, Judgement, judge, why_incomparable
from trainer.compare import SliceDifference
from trainer.data import Data, read_local_data
from trainer.evaluate import MAIN_METRIC, evaluate
from trainer.export import NotExportable
from trainer.exporting import export_proved
from trainer.fit import MODEL_TASK, Candidate, Matrices, fit_candidates, make_matrices
from trainer.learners import encode_frame

DATASET = "manifest.json"
REPRODUCTION_TOLERANCE = 1e-9


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """The champion's main metric, measured anew on its own held-out rows: rows, labels and split are as they were."""

    metric: str
    recorded: float | None
    measured: float | None
    passed: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the retrial showed."""

    pipeline: str
    version: str
    """Of the champion."""
    dataset: str
    rows: int
    """Held-out rows that both models scored."""
    learner: str | None
    metrics: dict[str, float]
    """The challenger's, the champion's with `champion_` before their names, and their difference."""
    slices: list[SliceDifference]
    gates: list[Gate]
    reproduction: Reproduction
    incomparable: str
    """Why the champion could not be compared; empty where it was."""
    code: str

    @property
    def passed(self) -> bool:
        """Whether the challenger met every gate."""
        return not gates.failures(self.gates)


class Retrial:
    """One trial of this code against one champion."""

    def __init__(self, pipeline: LoadedPipeline, champion: Path, stored: Path, data: Path) -> None:
        """Loads what is needed.

        Args:
            pipeline: as it is now.
            champion: the folder of the champion's release.
            stored: the champion's dataset version: its manifest and its parts.
            data: the same rows to train on; another folder where features were prepared anew.
        """
        self._pipeline = pipeline
        self._folder = champion
        self._release = msgspec.json.decode((champion / MANIFEST).read_bytes(), type=Release)
        self._statement: Statement = compile_statement(pipeline)
        holdout = pipeline.spec.training.holdout
        self._manifest = read_local_manifest(data)
        self._data = read_local_data(data, self._manifest, holdout)
        same = data.resolve() == stored.resolve()
        self._stored = self._data if same else read_local_data(stored, read_local_manifest(stored), holdout)
        self._check_slices()

    def run(self) -> Report:
        """Trains, compares and judges."""
        early = self._early_gates()
        if gates.failures(early):
            return self._report(early, None, None, 0)
        matrices = make_matrices(self._statement, self._data)
        best = fit_candidates(self._pipeline, matrices, lambda: None)[0]
        judgement, rows = self._judge(best)
        judged = [*early, *self._own_gates(matrices, best), *judgement.gates]
        return self._report(judged, best, judgement, rows)

    def _report(self, judged: list[Gate], best: Candidate | None, judgement: Judgement | None, rows: int) -> Report:
        return Report(
            pipeline=self._pipeline.name,
            version=self._release.version,
            dataset=self._release.dataset.version,
            rows=rows,
            learner=best.learner if best else None,
            metrics={**(best.metrics if best else {}), **(judgement.metrics if judgement else {})},
            slices=judgement.slices if judgement else [],
            gates=judged,
            reproduction=self._reproduce(),
            incomparable=judgement.defender.reason if judgement else "",
            code=str(Path(trainer.__file__).parent),
        )

    def _check_slices(self) -> None:
        known = {feature.name for feature in self._statement.features}
        if unknown := [name for name in self._pipeline.spec.gates.slices if name not in known]:
            raise PipelineInvalid(f"gates.slices names {', '.join(unknown)}, which features.sql does not yield")

    def _early_gates(self) -> list[Gate]:
        needed = self._pipeline.spec.training.min_rows
        return [
            gates.rows_gate(self._manifest.labelled, needed),
            gates.schema_gate(self._manifest, self._statement.features),
            *gates.split_gates(self._data.train_label, self._data.test_label),
        ]

    def _own_gates(self, matrices: Matrices, best: Candidate) -> list[Gate]:
        spec = self._pipeline.spec
        own = [gates.leakage_gate(spec.task, matrices), gates.baseline_gate(spec.task, best.metrics, spec.gates)]
        if spec.task == "classification":
            own.append(gates.calibration_gate(best.metrics, spec.gates))
        return [*own, *self._export_gates(matrices, best)]

    def _export_gates(self, matrices: Matrices, best: Candidate) -> list[Gate]:
        task = MODEL_TASK[self._pipeline.spec.task]
        try:
            return export_proved(best.estimator, matrices, task, self._pipeline.spec.training.seed).gates
        except NotExportable as error:
            return [gates.unexportable_gate(str(error))]

    def _judge(self, best: Candidate) -> tuple[Judgement, int]:
        """Compares on the held-out rows that both datasets have, each model on the features that it knows."""
        rows = self._data.test
        known = set(self._stored.frame[ENTITY])
        both = rows[ENTITY].isin(known).to_numpy()
        scores, reason = self._champion_scores(rows[both])
        defender = Defender(champion=self._champion(), scores=scores, reason=reason)
        judged = judge(self._pipeline, defender, rows[both], self._data.test_label[both], best.scores[both])
        return judged, int(both.sum())

    def _champion_scores(self, rows: pd.DataFrame) -> tuple[Array | None, str]:
        if not len(rows):
            return None, "no held-out row is in its dataset"
        stored = self._stored.frame.set_index(ENTITY, drop=False).loc[rows[ENTITY]]
        return self._score(self._pipeline, stored)

    def _score(self, pipeline: LoadedPipeline | None, rows: pd.DataFrame) -> tuple[Array | None, str]:
        try:
            runtime = ReleaseRuntime(self._folder)
        except ReleaseRefused as error:
            return None, str(error)
        try:
            reason = why_incomparable(runtime, pipeline, rows) if pipeline else ""
            return (None, reason) if reason else (runtime.model.score(_encoded(runtime, rows)), "")
        except BadInput as error:
            return None, str(error)
        finally:
            runtime.close()

    def _champion(self) -> PromotedRelease:
        release = self._release
        return PromotedRelease(
            pipeline=release.pipeline,
            generation=1,
            version=release.version,
            path="",
            sha256=hashlib.sha256((self._folder / MANIFEST).read_bytes()).hexdigest(),
            dataset_number=release.dataset.number,
            metrics=release.metrics,
            promoted_at=release.created_at,
            share=1.0,
            reason="",
            previous_version=None,
        )

    def _reproduce(self) -> Reproduction:
        metric = MAIN_METRIC[self._release.task]
        recorded = self._release.metrics.get(metric)
        measured = self._measure(self._stored, metric)
        passed = recorded is None or (measured is not None and abs(measured - recorded) <= REPRODUCTION_TOLERANCE)
        return Reproduction(metric=metric, recorded=recorded, measured=measured, passed=passed)

    def _measure(self, data: Data, metric: str) -> float | None:
        if gates.failures(gates.split_gates(data.train_label, data.test_label)):
            return None
        scores, _ = self._score(None, data.test)
        return None if scores is None else evaluate(self._release.task, data.test_label, scores)[metric]


def _encoded(runtime: ReleaseRuntime, rows: pd.DataFrame) -> Array:
    return encode_frame(runtime.release.features, rows)


def read_local_manifest(folder: Path) -> Manifest:
    """The manifest of the dataset version in `folder`."""
    return decode_manifest((folder / DATASET).read_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, trains, and writes the report; that a gate fails is no failure of the retrial."""
    parser = argparse.ArgumentParser(prog="python -m trainer.retrial", description=__doc__)
    parser.add_argument("--pipeline", type=Path, required=True, help="the pipeline's folder")
    parser.add_argument("--release", type=Path, required=True, help="the folder of the champion's serving files")
    parser.add_argument("--stored", type=Path, required=True, help="manifest.json and parts of its dataset version")
    parser.add_argument("--data", type=Path, required=True, help="manifest.json and parts to train on")
    parser.add_argument("--report", type=Path, required=True, help="where to write the report, as JSON")
    given = parser.parse_args(arguments)
    report = Retrial(load_pipeline(given.pipeline), given.release, given.stored, given.data).run()
    given.report.write_bytes(msgspec.json.encode({"passed": report.passed, **msgspec.to_builtins(report)}))


if __name__ == "__main__":
    main()
