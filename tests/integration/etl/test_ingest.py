"""Whole files through etl: what is kept, what is refused, and that repeats change nothing."""

import gzip
import io
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import Engine, text

from esteira.bucket import Bucket
from esteira.dataset import Manifest, decode_manifest
from esteira.events import RawDataUploaded
from esteira.pushes import Delivery
from etl.handlers import Handlers

HEADER = "parcel,sent,weight,depot,days"
GOOD = f"{HEADER}\na,2024-01-01T10:00:00Z,1.5,north,5\nb,2024-01-02T10:00:00Z,2,NA,1\nc,2024-01-03T10:00:00Z,0,south,\n"


def upload(bucket: Bucket, handlers: Handlers, name: str, data: bytes | str) -> RawDataUploaded:
    generation = bucket.write_if(name, data if isinstance(data, bytes) else data.encode(), None)
    event = RawDataUploaded(bucket=bucket.name, object=name, generation=generation)
    announce(handlers, event)
    return event


def announce(handlers: Handlers, event: RawDataUploaded) -> None:
    handlers.receive(event, Delivery(event_id=f"{event.object}-{event.generation}", attributes={}, data=b""))


def only(handlers: Handlers, pipeline: str = "parcels") -> dict[str, Any]:
    (found,) = handlers.ingestions(pipeline)
    return found


def query(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def newest_manifest(engine: Engine, bucket: Bucket) -> Manifest:
    ((path,),) = query(engine, "SELECT manifest FROM datasets ORDER BY number DESC LIMIT 1")
    return decode_manifest(bucket.read(path))


def rows_of(bucket: Bucket, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(bucket.read(path))).to_pylist()
    return found


def test_accepted_rows_become_features_a_part_a_dataset_and_outcomes(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", GOOD)
    assert {k: only(handlers)[k] for k in ("status", "rows", "accepted", "quarantined")} == {
        "status": "done",
        "rows": 3,
        "accepted": 3,
        "quarantined": 0,
    }
    stored = query(engine, "SELECT _entity, _label, weight, ratio, depot_code FROM features_parcels ORDER BY 1")
    assert stored == [("a", 1.0, 1.5, None, "NORTH"), ("b", 0.0, 2.0, None, None), ("c", None, 0.0, None, "SOUTH")]
    manifest = newest_manifest(engine, bucket)
    assert (manifest.number, manifest.rows, manifest.labelled, len(manifest.parts)) == (1, 3, 2, 1)
    assert [row["_line"] for row in rows_of(bucket, manifest.parts[0].path)] == [2, 3, 4]
    assert query(engine, "SELECT entity, label FROM outcomes ORDER BY 1") == [("a", 1.0), ("b", 0.0)]
    assert query(engine, "SELECT topic, published_at IS NOT NULL FROM outbox ORDER BY id") == [
        ("dataset-prepared", True),
        ("outcomes-observed", True),
    ]
