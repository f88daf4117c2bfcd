"""All queries of etl."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
from sqlalchemy import and_, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from esteira import leases
from esteira.dataset import ENTITY, EVENT_TIME, LABEL, Manifest, manifest_path
from esteira.exceptions import PipelineInvalid, Unavailable
from esteira.leases import Lease
from esteira.schema import quote
from esteira.statement import FeatureColumn
from esteira.tables import datasets, ingestions

_INGESTION_ID = "_ingestion_id"
_KEYS = {ENTITY: "text", EVENT_TIME: "timestamp with time zone", LABEL: "double precision", _INGESTION_ID: "uuid"}
_KINDS = {"numeric": "double precision", "categorical": "text"}
_LISTED = 100


class Ingestion(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of one object, to be ingested."""

    id: UUID
    pipeline: str
    bucket: str
    object: str
    generation: int
    status: str
    created_at: datetime


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file."""

    status: str
    """`done` when its rows were judged one by one, `failed` when it was refused whole."""
    reason: str | None = None
    rows: int | None = None
    accepted: int = 0
    quarantined: int | None = None
    reasons: dict[str, int] = {}
    quarantine: str | None = None
    part: str | None = None
    dataset_version: str | None = None


class Repository:
    """Queries within the session's transaction, which the caller commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record(self, pipeline: str, bucket: str, name: str, generation: int) -> UUID:
        """Makes sure that the object's generation has an ingestion; returns its id."""
        values = {"id": uuid4(), "pipeline": pipeline, "bucket": bucket, "object": name, "generation": generation}
        self._session.execute(upsert(ingestions).values(values).on_conflict_do_nothing())
        same = and_(ingestions.c.bucket == bucket, ingestions.c.object == name, ingestions.c.generation == generation)
        found: UUID = self._session.execute(select(ingestions.c.id).where(same)).scalar_one()
        return found

    def unrecorded(self, bucket: str, objects: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those of `objects` (path and generation) that have no ingestion."""
        key = tuple_(ingestions.c.object, ingestions.c.generation)
        found = select(ingestions.c.object, ingestions.c.generation).where(
            ingestions.c.bucket == bucket, key.in_(objects)
        )
        known = {(row.object, row.generation) for row in self._session.execute(found)}
        return [item for item in objects if item not in known]

    def ingestion(self, ingestion_id: UUID) -> Ingestion:
        """Reads an ingestion that exists."""
        columns = [ingestions.c[name] for name in Ingestion.__struct_fields__]
        row = self._session.execute(select(*columns).where(ingestions.c.id == ingestion_id)).one()
        return Ingestion(**row._mapping)

    def claim(self, ingestion_id: UUID, seconds: float) -> Lease | None:
        """Takes an unfinished ingestion that no other worker holds."""
        return leases.claim(self._session, ingestions, ingestion_id, seconds, ingestions.c.status == "pending")

    def give_back(self, lease: Lease, reason: str, counted: bool) -> None:
        """Ends an attempt so that the next may begin at once; one that is not counted was not the file's fault."""
        attempts = ingestions.c.attempts if counted else ingestions.c.attempts - 1
        values = {"lease_until": None, "reason": reason, "attempts": attempts}
        self._session.execute(update(ingestions).where(lease.is_mine()).values(values))

    def abandoned(self, limit: int) -> list[UUID]:
        """Unfinished ingestions that no worker holds, oldest first."""
        free = or_(ingestions.c.lease_until.is_(None), ingestions.c.lease_until < func.clock_timestamp())
        found = select(ingestions.c.id).where(ingestions.c.status == "pending", free)
        return list(self._session.execute(found.order_by(ingestions.c.created_at).limit(limit)).scalars())

    def finish(self, lease: Lease, result: Result) -> None:
        """Records what became of the file.

        Raises:
            LeaseLost: another worker has it by now.
        """
        leases.held(self._session, lease)
        values = {**msgspec.structs.asdict(result), "lease_until": None, "finished_at": func.clock_timestamp()}
        self._session.execute(update(ingestions).where(lease.is_mine()).values(values))

    def latest_ingestions(self, pipeline: str) -> list[dict[str, Any]]:
        """The pipeline's newest ingestions, newest first, as the API shows them."""
        shown = ("id", "object", "status", "rows", "accepted", "quarantined", "reasons", "reason", "quarantine")
        columns = [ingestions.c[name] for name in (*shown, "dataset_version", "created_at", "finished_at")]
        found = select(*columns).where(ingestions.c.pipeline == pipeline)
        newest = found.order_by(ingestions.c.created_at.desc(), ingestions.c.id).limit(_LISTED)
        return [dict(row._mapping) for row in self._session.execute(newest)]

    def lock_pipeline(self, pipeline: str) -> None:
        """Lets one file of the pipeline at a time into what follows, until the transaction ends."""
        self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"etl:{pipeline}", 0))))

    def newest_dataset(self, pipeline: str) -> Any:
        """Number and manifest path of the newest dataset version."""
        found = select(datasets.c.number, datasets.c.manifest).where(datasets.c.pipeline == pipeline)
        return self._session.execute(found.order_by(datasets.c.number.desc()).limit(1)).first()

    def add_dataset(self, manifest: Manifest, ingestion_id: UUID) -> None:
        """Records a dataset version whose manifest is in the bucket."""
        values = {
            "pipeline": manifest.pipeline,
            "number": manifest.number,
            "version": manifest.version,
            "manifest": manifest_path(manifest.pipeline, manifest.version),
            "rows": manifest.rows,
            "labelled": manifest.labelled,
            "ingestion_id": ingestion_id,
        }
        self._session.execute(insert(datasets).values(values))

    def known_keys(self, pipeline: str, keys: list[str]) -> dict[str, str]:
        """Those of `keys` that were ingested before, with the object that brought them."""
        if not self._columns(pipeline):
            return {}
        found = text(
            f"SELECT f.{ENTITY}, i.object FROM unnest(CAST(:keys AS text[])) AS wanted (key) "  # noqa: S608
            f"JOIN {_features(pipeline)} f ON f.{ENTITY} = wanted.key JOIN ingestions i ON i.id = f.{_INGESTION_ID}"
        )
        return dict(map(tuple, self._session.execute(found, {"keys": keys})))

    def ensure_features_table(self, pipeline: str, features: Sequence[FeatureColumn]) -> None:
        """Makes `features_<pipeline>`, or adds the columns that it lacks; columns of dropped features stay.

        Raises:
            PipelineInvalid: a feature has another kind than its column.
        """
        wanted = _KEYS | {feature.name: _KINDS[feature.kind] for feature in features}
        found = self._columns(pipeline)
        changed = [name for name in wanted if name in found and found[name] != wanted[name]]
        if changed:
            told = ", ".join(f"{name} is {found[name]} there and {wanted[name]} now" for name in changed)
            raise PipelineInvalid(f"features_{pipeline}: {told}; give the changed feature another name in features.sql")
        if not found:
            self._create_features_table(pipeline, wanted)
        elif missing := [name for name in wanted if name not in found]:
            added = ", ".join(f"ADD COLUMN {quote(name)} {wanted[name]}" for name in missing)
            self._session.execute(_ddl(f"ALTER TABLE {_features(pipeline)} {added}"))

    def _create_features_table(self, pipeline: str, columns: dict[str, str]) -> None:
        declared = [f"{quote(name)} {kind}" for name, kind in columns.items()]
        self._session.execute(
            _ddl(f"CREATE TABLE {_features(pipeline)} ({', '.join(declared)}, PRIMARY KEY ({quote(ENTITY)}))")
        )

    def _columns(self, pipeline: str) -> dict[str, str]:
        found = text(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped"
        )
        return dict(map(tuple, self._session.execute(found, {"name": _features(pipeline)})))

    def copy_features(self, pipeline: str, features: Sequence[FeatureColumn], rows: bytes) -> None:
        """Adds rows, as `etl.parts.encode_copy` gives them."""
        columns = [ENTITY, EVENT_TIME, LABEL, *(feature.name for feature in features), _INGESTION_ID]
        self._copy(f"{_features(pipeline)} ({', '.join(map(quote, columns))})", rows)

    def copy_outcomes(self, pipeline: str, source: str, rows: bytes) -> None:
        """Adds outcomes, as `etl.parts.encode_outcomes` gives them; the first outcome of an entity stays."""
        self._session.execute(
            text("CREATE TEMP TABLE arriving (entity text, label float8, event_time timestamptz) ON COMMIT DROP")
        )
        self._copy("arriving", rows)
        added = text(
            "INSERT INTO outcomes (pipeline, entity, label, event_time, source) "
            "SELECT :pipeline, entity, label, event_time, :source FROM arriving ORDER BY entity ON CONFLICT DO NOTHING"
        )
        self._session.execute(added, {"pipeline": pipeline, "source": source})

    def _copy(self, target: str, rows: bytes) -> None:
        connection: Any = self._session.connection().connection.driver_connection
        try:
            with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
                copy.write(rows)
        except psycopg.OperationalError as error:
            raise Unavailable(f"Postgres: {error}") from error


def _features(pipeline: str) -> str:
    return quote(f"features_{pipeline}")


def _ddl(statement: str) -> Any:
    """Names may hold colons, which `text` would take for parameters."""
    return text(statement.replace(":", "\\:"))
