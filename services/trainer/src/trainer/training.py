"""One attempt at one training run, from its dataset to its end."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import numpy as np
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.dataset import Manifest
from esteira.exceptions import Conflict, LeaseLost, NotFound, PipelineInvalid
from esteira.leases import Lease
from esteira.pipeline import LoadedPipeline
from esteira.promotions import find_standing
from esteira.release import Gate, release_path
from esteira.statement import Statement, compile_statement
from trainer import gates, repository
from trainer.challenge import Defender, Judgement, first_share, judge, score_champion
from trainer.data import Data, read_data, read_manifest
from trainer.examples import Examples, find_examples
from trainer.export import NotExportable
from trainer.exporting import export_proved
from trainer.fit import MODEL_TASK, Candidate, Matrices, fit_candidates, make_matrices
from trainer.record import Attempt, log_attempt
from trainer.releasing import Origin, Packed, pack, upload
from trainer.rows import DatasetVersion, NewRelease, TrainingRun
from trainer.settle import Ending, settle
from trainer.stopwatch import Stopwatch
from trainer.tracking import Tracking

logger = logging.getLogger(__name__)

RACES: Final = 5
_NO_LABELS: Final = np.empty(0)
_UNCOMPARED: Final = Judgement(defender=Defender(champion=None), gates=[], metrics={}, slices=[])


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt works with."""

    engine: Engine
    bucket: Bucket
    tracking: Tracking
    cache: Path
    code_version: str


class Training:
    """An attempt at a run; the lease is held by the caller's heartbeat."""

    def __init__(self, workshop: Workshop, lease: Lease, run: TrainingRun, pipeline: LoadedPipeline) -> None:
        self._workshop = workshop
        self._lease = lease
        self._run = run
        self._pipeline = pipeline
        self._watch = Stopwatch()
        self._pool = ThreadPoolExecutor(1, "tracking")

    def work(self) -> str:
        """Trains, judges, releases and promotes; gives the run's final status.

        Raises:
            LeaseLost: another job has the run; nothing was decided here.
            PermanentError: no further attempt can succeed.
            TransientError: a further attempt may.
        """
        with self._pool, TemporaryDirectory(prefix="training-") as folder:
            status = self._work(Path(folder))
        logger.info("training ended", extra={"status": status, "seconds": self._watch.laps})
        return status

    def _work(self, folder: Path) -> str:
        tracked = self._pool.submit(self._start_tracking)
        dataset = self._dataset()
        manifest = read_manifest(self._workshop.bucket, dataset.manifest)
        statement = compile_statement(self._pipeline)
        self._check_slices(statement)
        early = self._early_gates(manifest, statement)
        data = None if gates.failures(early) else self._read(manifest)
        self._watch.lap("data")
        if data is not None:
            early = [*early, *gates.split_gates(data.train_label, data.test_label)]
        origin = self._origin(statement, dataset, manifest, tracked)
        if data is None or gates.failures(early):
            return self._reject(folder, origin, early)
        return self._train(folder, origin, early, data)

    def _train(self, folder: Path, origin: Origin, early: list[Gate], data: Data) -> str:
        matrices = make_matrices(origin.statement, data)
        self._watch.lap("encode")
        candidates = fit_candidates(self._pipeline, matrices, self._check)
        self._watch.lap("fit")
        own = [*early, *self._own_gates(matrices, candidates[0])]
        judgement = self._judge(data, candidates[0])
        self._watch.lap("judge")
        packed = self._pack(folder / "release", origin, data, matrices, candidates[0], [*own, *judgement.gates])
        self._watch.lap("pack")
        judged = packed.release.gates if isinstance(packed, Packed) else packed
        return self._end(folder, origin, data, candidates, judgement, judged, packed)

    def _end(
        self,
        folder: Path,
        origin: Origin,
        data: Data,
        candidates: list[Candidate],
        judgement: Judgement,
        judged: list[Gate],
        packed: Packed | list[Gate],
    ) -> str:
        whole = packed if isinstance(packed, Packed) and not gates.failures(judged) else None
        attempt = Attempt(
            origin=origin,
            candidates=candidates,
            label=data.test_label,
            gates=judged,
            slices=judgement.slices,
            metrics={**candidates[0].metrics, **judgement.metrics},
            verdict=gates.verdict(judged),
            packed=whole,
        )
        self._record(folder, attempt)
        if whole is None:
            return self._settle(attempt, judgement)
        upload(self._workshop.bucket, whole)
        self._watch.lap("upload")
        return self._settle_against_champion(attempt, judgement, data)

    def _settle_against_champion(self, attempt: Attempt, judgement: Judgement, data: Data) -> str:
        """Promotes over the champion that it was compared with; over another one only after comparing again."""
        for _ in range(RACES):
            try:
                return self._settle(attempt, judgement)
            except Conflict as error:
                logger.warning("champion changed meanwhile", extra={"error": str(error)})
            judgement = self._judge(data, attempt.candidates[0])
            named = {gate.name for gate in judgement.gates}
            judged = [gate for gate in attempt.gates if gate.name not in named] + judgement.gates
            attempt = msgspec.structs.replace(attempt, gates=judged, verdict=gates.verdict(judged))
        raise LeaseLost(f"the champion changed {RACES} times while this run was ending; try again later")

    def _settle(self, attempt: Attempt, judgement: Judgement) -> str:
        self._check()
        status = self._status(attempt, judgement)
        ending = Ending(
            status=status,
            verdict=attempt.verdict,
            metrics=attempt.metrics,
            gates=attempt.gates,
            mlflow_run_id=attempt.origin.mlflow_run_id,
            release=None if status == "rejected" else self._release(attempt),
            share=first_share(self._pipeline, judgement.defender),
            shadow=self._pipeline.spec.promotion == "shadow",
            expected_generation=judgement.defender.generation,
        )
        settle(self._workshop.engine, self._lease, self._run, ending)
        self._watch.lap("settle")
        return status

    def _status(self, attempt: Attempt, judgement: Judgement) -> str:
        if attempt.packed is None or gates.failures(attempt.gates):
            return "rejected"
        return "promoted" if first_share(self._pipeline, judgement.defender) == 1 else "approved"

    def _release(self, attempt: Attempt) -> NewRelease | None:
        if attempt.packed is None:
            return None
        release = attempt.packed.release
        return NewRelease(
            pipeline=release.pipeline,
            version=release.version,
            path=release_path(release.pipeline, release.version),
            sha256=attempt.packed.sha256,
            training_run_id=self._run.id,
            dataset_number=self._run.dataset_number,
            mlflow_run_id=attempt.origin.mlflow_run_id,
            metrics=release.metrics,
            gates=attempt.gates,
        )

    def _reject(self, folder: Path, origin: Origin, judged: list[Gate]) -> str:
        """Ends the run before anything is fitted."""
        attempt = Attempt(
            origin=origin,
            candidates=[],
            label=_NO_LABELS,
            gates=judged,
            slices=[],
            metrics={},
            verdict=gates.verdict(judged),
            packed=None,
        )
        self._record(folder, attempt)
        return self._settle(attempt, _UNCOMPARED)

    def _record(self, folder: Path, attempt: Attempt) -> None:
        self._check()
        gathered = folder / "record"
        gathered.mkdir()
        log_attempt(self._workshop.tracking, attempt, gathered)
        self._watch.lap("record")

    def _check(self) -> None:
        if self._lease.lost:
            raise LeaseLost

    def _start_tracking(self) -> str:
        tags = {
            "number": str(self._run.number),
            "reason": self._run.reason,
            "requested_by": self._run.requested_by,
            "dataset_number": str(self._run.dataset_number),
            "code_version": self._workshop.code_version,
        }
        return self._workshop.tracking.start_run(self._run.pipeline, str(self._run.id), self._run.fence, tags)

    def _origin(
        self, statement: Statement, dataset: DatasetVersion, manifest: Manifest, tracked: "Future[str]"
    ) -> Origin:
        mlflow_run_id = tracked.result()
        self._watch.lap("tracking")
        return Origin(
            pipeline=self._pipeline,
            statement=statement,
            run=self._run,
            dataset=dataset,
            manifest=manifest,
            code_version=self._workshop.code_version,
            mlflow_run_id=mlflow_run_id,
        )

    def _dataset(self) -> DatasetVersion:
        with Session(self._workshop.engine) as session:
            found = repository.find_dataset(session, self._run.pipeline, self._run.dataset_number)
        if found is None:
            raise NotFound(f"pipeline {self._run.pipeline} has no dataset {self._run.dataset_number}")
        return found

    def _check_slices(self, statement: Statement) -> None:
        known = {feature.name for feature in statement.features}
        if unknown := [name for name in self._pipeline.spec.gates.slices if name not in known]:
            raise PipelineInvalid(f"gates.slices names {', '.join(unknown)}, which features.sql does not yield")

    def _early_gates(self, manifest: Manifest, statement: Statement) -> list[Gate]:
        needed = self._pipeline.spec.training.min_rows
        return [gates.rows_gate(manifest.labelled, needed), gates.schema_gate(manifest, statement.features)]

    def _read(self, manifest: Manifest) -> Data:
        holdout = self._pipeline.spec.training.holdout
        return read_data(self._workshop.bucket, manifest, holdout, self._workshop.cache)

    def _own_gates(self, matrices: Matrices, best: Candidate) -> list[Gate]:
        spec = self._pipeline.spec
        own = [gates.leakage_gate(spec.task, matrices), gates.baseline_gate(spec.task, best.metrics, spec.gates)]
        if spec.task == "classification":
            own.append(gates.calibration_gate(best.metrics, spec.gates))
        return own

    def _judge(self, data: Data, best: Candidate) -> Judgement:
        self._check()
        with Session(self._workshop.engine) as session:
            standing = find_standing(session, self._run.pipeline)
        rows = data.test
        defender = score_champion(self._workshop.bucket, self._workshop.cache, self._pipeline, standing.champion, rows)
        defender = msgspec.structs.replace(defender, generation=standing.generation)
        return judge(self._pipeline, defender, rows, data.test_label, best.scores)

    def _pack(
        self, folder: Path, origin: Origin, data: Data, matrices: Matrices, best: Candidate, judged: list[Gate]
    ) -> Packed | list[Gate]:
        """Packs the release, with all gates in it; gives the gates alone where the model has no exact form."""
        self._check()
        task = MODEL_TASK[self._pipeline.spec.task]
        try:
            exported = export_proved(best.estimator, matrices, task, self._pipeline.spec.training.seed)
        except NotExportable as error:
            return [*judged, gates.unexportable_gate(str(error))]
        folder.mkdir()
        return pack(folder, origin, data, matrices, best, exported, self._examples(data), judged)

    def _examples(self, data: Data) -> Examples:
        with Session(self._workshop.engine) as session:
            raw = repository.newest_raw_object(session, self._run.pipeline, self._run.dataset_number)
        try:
            content = self._workshop.bucket.read(raw) if raw else b""
        except NotFound as error:  # people may tidy up raw files
            logger.warning("no example rows", extra={"error": str(error)})
            content = b""
        return find_examples(self._pipeline, content, data.frame)
