"""One attempt at a file: read it, prepare it, and commit everything that follows from it at once.

Objects are written before the transaction, under names made of their content or of the ingestion's id. Whoever stops
anywhere leaves at most objects that nothing names, and whoever does it again writes the same ones.
"""

import hashlib
import logging
import time
from contextlib import suppress

import msgspec
import pyarrow as pa
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.dataset import Manifest, Part, decode_manifest, encode_manifest, manifest_path
from esteira.events import DatasetPrepared, OutcomesObserved
from esteira.exceptions import Busy, Conflict, PipelineInvalid, UnknownPipeline
from esteira.leases import Lease
from esteira.outbox import enqueue
from esteira.pipeline import find_pipeline
from esteira.statement import Statement
from etl.manifests import next_manifest
from etl.parts import Source, encode_copy, encode_outcomes, encode_part, encode_quarantine
from etl.prepare import Preparation, Refusal, count_reasons
from etl.records import Records
from etl.repository import Ingestion, Repository, Result
from etl.source import FileRefused, Gone, check_header, fetch, unpack
from etl.workbench import Workbench

logger = logging.getLogger(__name__)

MAX_RACES = 10
BATCH_LINES = 16_384
_SHOWN_REASONS = 100


class Outrun(Exception):
    """Another file of the pipeline was committed since its state was read."""


class Attempts:
    """Makes attempts. Threads may share it."""

    def __init__(self, engine: Engine, bucket: Bucket, workbenches: dict[str, Workbench], max_file_bytes: int) -> None:
        self._engine = engine
        self._bucket = bucket
        self._workbenches = workbenches
        self._max_file_bytes = max_file_bytes

    def run(self, ingestion: Ingestion, lease: Lease) -> None:
        """Ingests the file, or records why it is refused.

        Raises:
            LeaseLost: another worker has the ingestion by now.
            TransientError: Postgres or the bucket does not answer, or other files of the pipeline kept coming first.
        """
        started = time.monotonic()
        attempt = Attempt(self._engine, self._bucket, ingestion, lease)
        try:
            result = self._judge(attempt, ingestion)
        except Gone as error:
            result = attempt.finish(Result(status="failed", reason=str(error)))
        seconds = round(time.monotonic() - started, 3)
        facts = {"ingestion_id": str(ingestion.id), "pipeline": ingestion.pipeline, "object": ingestion.object}
        logger.info("file ingested", extra=facts | _facts(result) | {"seconds": seconds})

    def _judge(self, attempt: "Attempt", ingestion: Ingestion) -> Result:
        raw = data = None
        try:
            raw = data = fetch(self._bucket, ingestion.object, ingestion.generation, self._max_file_bytes)
            workbench = self._workbench(ingestion.pipeline)
            data = unpack(ingestion.object, raw, self._max_file_bytes)
            return attempt.ingest(workbench, data)
        except (FileRefused, UnknownPipeline) as error:
            return attempt.refuse(str(error), raw, data)
        except PipelineInvalid as error:
            return attempt.refuse(f"{error}; then upload the file again", raw, data)

    def _workbench(self, name: str) -> Workbench:
        find_pipeline({known: workbench.pipeline for known, workbench in self._workbenches.items()}, name)
        return self._workbenches[name]


class Attempt:
    """One attempt at one file."""

    def __init__(self, engine: Engine, bucket: Bucket, ingestion: Ingestion, lease: Lease) -> None:
        self._engine = engine
        self._bucket = bucket
        self._ingestion = ingestion
        self._lease = lease

    def ingest(self, workbench: Workbench, data: bytes) -> Result:
        """Judges the file row by row.

        Raises:
            FileRefused: it is no CSV file with the pipeline's columns.
            PipelineInvalid: features.sql does not hold on these rows, or does not fit the features that are stored.
        """
        names = check_header(data, workbench.pipeline.columns)
        records = Records(data)
        with workbench.cursor() as cursor:
            preparation = Preparation(workbench, cursor, names)
            refusals = [r for batch in records.batches(len(names), BATCH_LINES) for r in preparation.add(batch)]
            refusals += preparation.refuse_long_keys() + preparation.refuse_repeated()
            for _ in range(MAX_RACES):
                with suppress(Outrun):
                    return self._against_newest(workbench, preparation, records, refusals)
        raise Busy(f"other files of {workbench.pipeline.name} came first {MAX_RACES} times")

    def refuse(self, reason: str, raw: bytes | None, data: bytes | None) -> Result:
        """Sets the file aside whole, as it came, and counts its lines as refused.

        Args:
            reason: what is wrong with it, and what to do.
            raw: the object's bytes; None where they are too many to be read.
            data: the bytes without compression.
        """
        path = f"quarantine/{self._ingestion.pipeline}/{self._ingestion.id}.raw"
        if raw is None:
            self._bucket.copy(self._ingestion.object, path)
        else:
            self._bucket.upload_once(path, raw)
        lines = None if data is None else Records(data).count()
        reasons = {f"file: {reason}": lines} if lines else {}
        result = Result(status="failed", reason=reason, rows=lines, quarantined=lines, reasons=reasons, quarantine=path)
        return self.finish(result)

    def finish(self, result: Result) -> Result:
        """Records the result of a file that adds no row."""
        with Session(self._engine) as session, session.begin():
            Repository(session).finish(self._lease, result)
        return result

    def _against_newest(
        self, workbench: Workbench, preparation: Preparation, records: Records, refusals: list[Refusal]
    ) -> Result:
        """Prepares what depends on the files before this one, and commits.

        Raises:
            Outrun: another file was committed meanwhile, so that keys and dataset version may be others.
        """
        pipeline = workbench.pipeline.name
        with Session(self._engine) as session, session.begin():
            newest = Repository(session).newest_dataset(pipeline)
            known = Repository(session).known_keys(pipeline, preparation.keys())
        refusals += preparation.refuse_known(known)
        result = self._result(preparation.rows(), refusals, self._keep_refused(refusals, records))
        if not result.accepted:
            return self.finish(result)
        table = preparation.features()
        part = self._write_part(table, preparation.proved_form(table))
        manifest = self._write_manifest(newest.manifest if newest else None, workbench.statement, part)
        result = msgspec.structs.replace(result, part=part.path, dataset_version=manifest.version)
        self._commit(manifest, part, table, result)
        return result

    def _result(self, accepted: int, refusals: list[Refusal], quarantine: str | None) -> Result:
        reasons = count_reasons(refusals)
        return Result(
            status="done",
            reason=None if accepted else ("no row was accepted" if refusals else "the file has a header and no rows"),
            rows=accepted + len(refusals),
            accepted=accepted,
            quarantined=len(refusals),
            reasons=dict(list(reasons.items())[:_SHOWN_REASONS]),
            quarantine=quarantine,
        )

    def _keep_refused(self, refusals: list[Refusal], records: Records) -> str | None:
        """An attempt that found other rows refused, because files came between, keeps them under a name of its own."""
        if not refusals:
            return None
        data = encode_quarantine(refusals, records.raw)
        folder = f"quarantine/{self._ingestion.pipeline}/{self._ingestion.id}"
        try:
            self._bucket.upload_once(path := f"{folder}.parquet", data)
        except Conflict:
            digest = hashlib.sha256(data).hexdigest()
            self._bucket.upload_once(path := f"{folder}-{digest[:16]}.parquet", data)
        return path

    def _write_part(self, table: pa.Table, proved_form: str | None) -> Part:
        raw = self._ingestion
        source = Source(ingestion_id=raw.id, object=raw.object, generation=raw.generation)
        part, data = encode_part(table, raw.pipeline, source, proved_form)
        self._bucket.upload_once(part.path, data)
        return part

    def _write_manifest(self, newest: str | None, statement: Statement, part: Part) -> Manifest:
        previous = decode_manifest(self._bucket.read(newest)) if newest else None
        manifest = next_manifest(previous, self._ingestion.pipeline, statement, part, self._ingestion.created_at)
        if previous is not None and manifest.left_out > previous.left_out:
            facts = {"pipeline": manifest.pipeline, "version": manifest.version, "rows": manifest.left_out}
            logger.warning("earlier parts left out, for they have other features", extra=facts)
        path = manifest_path(manifest.pipeline, manifest.version)
        self._bucket.upload_once(path, encode_manifest(manifest), "application/json")
        return manifest

    def _commit(self, manifest: Manifest, part: Part, table: pa.Table, result: Result) -> None:
        rows, outcomes = encode_copy(table, self._ingestion.id), encode_outcomes(table)
        with Session(self._engine) as session, session.begin():
            repository = Repository(session)
            repository.lock_pipeline(manifest.pipeline)
            newest = repository.newest_dataset(manifest.pipeline)
            if (newest.number if newest else 0) != manifest.number - 1:
                raise Outrun
            repository.finish(self._lease, result)
            repository.ensure_features_table(manifest.pipeline, manifest.features)
            repository.copy_features(manifest.pipeline, manifest.features, rows)
            repository.copy_outcomes(manifest.pipeline, self._source, outcomes)
            repository.add_dataset(manifest, self._ingestion.id)
            self._tell(session, manifest, part)

    @property
    def _source(self) -> str:
        return f"ingestion:{self._ingestion.id}"

    def _tell(self, session: Session, manifest: Manifest, part: Part) -> None:
        prepared = DatasetPrepared(
            pipeline=manifest.pipeline,
            number=manifest.number,
            version=manifest.version,
            rows=manifest.rows,
            ingestion_id=self._ingestion.id,
        )
        enqueue(session, prepared, "etl")
        if part.labelled:
            enqueue(session, self._observed(part), "etl")

    def _observed(self, part: Part) -> OutcomesObserved:
        return OutcomesObserved(
            pipeline=self._ingestion.pipeline,
            source=self._source,
            rows=part.labelled,
            first_event_time=part.first_event_time,
            last_event_time=part.last_event_time,
        )


def _facts(result: Result) -> dict[str, object]:
    return {
        "status": result.status,
        "reason": result.reason,
        "rows": result.rows,
        "accepted": result.accepted,
        "quarantined": result.quarantined,
        "dataset_version": result.dataset_version,
    }
