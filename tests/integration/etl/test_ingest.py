"""Whole files through etl: what is kept, what is refused, and that repeats change nothing."""

import csv
import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.dataset import Manifest, decode_manifest
from esteira.events import RawDataUploaded
from esteira.exceptions import Busy, Unavailable
from esteira.outbox import Relay
from esteira.publisher import Publisher
from esteira.pushes import Delivery
from etl.app import create_app
from etl.attempt import Attempts
from etl.handlers import Handlers
from etl.ingest import Ingestor
from etl.repository import Repository
from etl.workbench import Workbench, make_workbenches

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


def test_refused_rows_are_kept_with_line_text_and_reasons(handlers: Handlers, bucket: Bucket) -> None:
    body = GOOD.encode() + b'd,soon,-1,west,x\na,2024-01-01T10:00:00Z,1,north,5\ne,"2024\nf,\xff,1,north,1\nshort\n'
    upload(bucket, handlers, "raw/parcels/1.csv", body)
    found = only(handlers)
    assert (found["status"], found["rows"], found["accepted"], found["quarantined"]) == ("done", 8, 3, 5)
    assert found["reasons"]["duplicate key"] == 1
    kept = rows_of(bucket, found["quarantine"])
    assert [row["line"] for row in kept] == [5, 6, 7, 8, 9]
    assert kept[0]["text"] == "d,soon,-1,west,x"
    assert len(kept[0]["reasons"]) == 4
    assert kept[1]["reasons"] == ["duplicate key 'a': the key of line 2"]
    assert (kept[3]["text"], kept[3]["bytes"]) == ("f,\\xff,1,north,1", b"f,\xff,1,north,1")


def test_keys_of_an_earlier_file_are_refused_and_make_no_dataset_version(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", GOOD)
    upload(bucket, handlers, "raw/parcels/again.csv.gz", gzip.compress(GOOD.encode()))
    found = handlers.ingestions("parcels")[0]
    assert (found["status"], found["accepted"], found["reasons"]) == ("done", 0, {"duplicate key": 3})
    kept = rows_of(bucket, found["quarantine"])
    assert kept[0]["reasons"] == ["duplicate key 'a': already ingested from raw/parcels/1.csv"]
    assert query(engine, "SELECT count(*) FROM datasets") == [(1,)]


def test_a_second_file_adds_a_part_and_carries_the_first_over(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", GOOD)
    first = newest_manifest(engine, bucket)
    upload(bucket, handlers, "raw/parcels/2.csv", f"{HEADER}\nz,2024-02-01T10:00:00Z,1,north,9\n")
    second = newest_manifest(engine, bucket)
    assert (second.number, second.rows, second.labelled) == (2, 4, 3)
    assert second.parts[:1] == first.parts


def test_a_repeated_notification_of_a_finished_file_changes_nothing(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    event = upload(bucket, handlers, "raw/parcels/1.csv", GOOD)
    before = query(engine, "SELECT fence, attempts, finished_at FROM ingestions")
    announce(handlers, event)
    assert query(engine, "SELECT fence, attempts, finished_at FROM ingestions") == before
    assert query(engine, "SELECT count(*) FROM outbox") == [(2,)]


def test_a_notification_while_another_worker_is_at_it_is_to_be_sent_again(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    generation = bucket.write_if("raw/parcels/1.csv", GOOD.encode(), None)
    with Session(engine) as session, session.begin():
        ingestion_id = Repository(session).record("parcels", bucket.name, "raw/parcels/1.csv", generation)
        Repository(session).claim(ingestion_id, 60)
    with pytest.raises(Busy):
        announce(handlers, RawDataUploaded(bucket=bucket.name, object="raw/parcels/1.csv", generation=generation))


@pytest.mark.parametrize(
    ("name", "data", "said", "rows"),
    [
        ("raw/parcels/x.csv", b"", "the file is empty", 0),
        ("raw/parcels/x.csv", b"\x89PNG\r\n\x1a\n\0\0\1", "a PNG image", 2),
        ("raw/parcels/x.csv.gz", GOOD.encode(), "no gzip file", 3),
        ("raw/parcels/x.csv", GOOD.replace("weight", "mass").encode(), "unknown column 'mass'", 3),
        ("raw/parcels/x.csv", bytes(2 << 20), "at most 1048576 are taken", None),
        ("raw/wrong/x.csv", GOOD.encode(), "known pipelines: parcels", 3),
    ],
)
def test_a_file_refused_whole_is_set_aside_as_it_came(
    handlers: Handlers, bucket: Bucket, name: str, data: bytes, said: str, rows: int | None
) -> None:
    upload(bucket, handlers, name, data)
    found = only(handlers, name.split("/")[1])
    assert (found["status"], found["rows"], found["quarantined"]) == ("failed", rows, rows)
    assert said in found["reason"]
    assert bucket.read(found["quarantine"]) == data


def test_a_file_with_a_header_alone_is_done_without_rows(handlers: Handlers, bucket: Bucket, engine: Engine) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", HEADER)
    found = only(handlers)
    assert (found["status"], found["rows"], found["reason"]) == ("done", 0, "the file has a header and no rows")
    assert query(engine, "SELECT count(*) FROM datasets") == [(0,)]


def test_other_objects_are_passed_over(handlers: Handlers, bucket: Bucket, engine: Engine) -> None:
    for name in ("serving/parcels.json", "raw/readme.txt", "raw/parcels/folder/", "raw//x.csv"):
        announce(handlers, RawDataUploaded(bucket=bucket.name, object=name, generation=1))
    announce(handlers, RawDataUploaded(bucket="another", object="raw/parcels/1.csv", generation=1))
    assert query(engine, "SELECT count(*) FROM ingestions") == [(0,)]


def test_a_file_replaced_before_it_was_read_is_failed_and_its_successor_ingested(
    handlers: Handlers, bucket: Bucket
) -> None:
    old = bucket.write_if("raw/parcels/1.csv", b"old", None)
    new = bucket.write_if("raw/parcels/1.csv", GOOD.encode(), old)
    for generation in (old, new):
        announce(handlers, RawDataUploaded(bucket=bucket.name, object="raw/parcels/1.csv", generation=generation))
    second, first = handlers.ingestions("parcels")
    assert (first["status"], first["reason"]) == ("failed", f"replaced by generation {new} before it was read")
    assert (second["status"], second["accepted"]) == ("done", 3)


def test_a_file_deleted_before_it_was_read_is_failed(handlers: Handlers, bucket: Bucket) -> None:
    announce(handlers, RawDataUploaded(bucket=bucket.name, object="raw/parcels/none.csv", generation=7))
    assert "deleted before it was read" in only(handlers)["reason"]


def test_reconcile_ingests_what_nobody_announced_and_then_finds_nothing(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    bucket.write_if("raw/parcels/1.csv", GOOD.encode(), None)
    assert handlers.reconcile() == {"published": 2, "found": 1, "ingested": 1, "postponed": 0, "forgotten": 0}
    assert handlers.reconcile() == {"published": 0, "found": 0, "ingested": 0, "postponed": 0, "forgotten": 0}
    assert query(engine, "SELECT count(*) FROM features_parcels") == [(3,)]


def test_a_file_that_ended_its_workers_five_times_is_given_up(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    generation = bucket.write_if("raw/parcels/1.csv", GOOD.encode(), None)
    with Session(engine) as session, session.begin():
        Repository(session).record("parcels", bucket.name, "raw/parcels/1.csv", generation)
        session.execute(text("UPDATE ingestions SET attempts = 5, lease_until = now() - interval '1 second'"))
    handlers.reconcile()
    assert only(handlers)["status"] == "failed"
    assert "gave up after 5 attempts" in only(handlers)["reason"]


def test_an_outage_of_the_bucket_uses_up_no_attempt(
    engine: Engine, bucket: Bucket, workbenches: dict[str, Workbench], publisher: Publisher
) -> None:
    away = Bucket(bucket.name, "test", emulator="http://127.0.0.1:9", timeout=0.2, patience=0.2)
    attempts = Attempts(engine, away, workbenches, 1 << 20)
    handlers = Handlers(engine, away, Ingestor(engine, attempts, 30), Relay(engine, publisher), workbenches)
    with pytest.raises(Unavailable):
        announce(handlers, RawDataUploaded(bucket=bucket.name, object="raw/parcels/1.csv", generation=1))
    found = query(engine, "SELECT status, attempts, lease_until, reason IS NOT NULL FROM ingestions")
    assert found == [("pending", 0, None, True)]


def test_files_of_one_pipeline_at_the_same_time_keep_every_key_once(
    handlers: Handlers, bucket: Bucket, engine: Engine
) -> None:
    """Eight files, each with keys of its own and one that all share."""
    events = []
    for number in range(8):
        rows = [f"{key},2024-01-01T10:00:00Z,1,north,5" for key in ("shared", f"own-{number}")]
        name = f"raw/parcels/{number}.csv"
        generation = bucket.write_if(name, "\n".join([HEADER, *rows]).encode(), None)
        events.append(RawDataUploaded(bucket=bucket.name, object=name, generation=generation))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda event: announce(handlers, event), events))
    assert query(engine, "SELECT count(*), sum(accepted), sum(quarantined) FROM ingestions") == [(8, 9, 7)]
    assert query(engine, "SELECT number FROM datasets ORDER BY 1") == [(number,) for number in range(1, 9)]
    manifest = newest_manifest(engine, bucket)
    entities = [row["_entity"] for part in manifest.parts for row in rows_of(bucket, part.path)]
    assert (manifest.rows, len(entities), len(set(entities))) == (9, 9, 9)


def test_a_feature_that_is_new_gets_a_column_and_leaves_earlier_parts_out(
    handlers: Handlers, bucket: Bucket, engine: Engine, pipelines: Path, publisher: Publisher
) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", GOOD)
    (pipelines / "parcels" / "features.sql").write_text("SELECT raw.weight, 2 * raw.weight AS twice FROM raw")
    later = remade(engine, bucket, pipelines, publisher)
    upload(bucket, later, "raw/parcels/2.csv", f"{HEADER}\nz,2024-02-01T10:00:00Z,1,north,9\n")
    manifest = newest_manifest(engine, bucket)
    assert (manifest.number, manifest.rows, manifest.left_out, len(manifest.parts)) == (2, 1, 3, 1)
    stored = query(
        engine, "SELECT _entity, weight, twice, depot_code FROM features_parcels WHERE _entity IN ('a', 'z')"
    )
    assert sorted(stored) == [("a", 1.5, None, "NORTH"), ("z", 1.0, 2.0, None)]


def test_a_feature_that_changed_its_kind_fails_the_file_and_loses_nothing(
    handlers: Handlers, bucket: Bucket, engine: Engine, pipelines: Path, publisher: Publisher
) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", GOOD)
    (pipelines / "parcels" / "features.sql").write_text("SELECT raw.depot AS weight FROM raw")
    data = f"{HEADER}\nz,2024-02-01T10:00:00Z,1,north,9\n".encode()
    upload(bucket, remade(engine, bucket, pipelines, publisher), "raw/parcels/2.csv", data)
    found = handlers.ingestions("parcels")[0]
    assert (found["status"], found["rows"], found["quarantined"]) == ("failed", 1, 1)
    assert "weight is double precision there and text now" in found["reason"]
    assert bucket.read(found["quarantine"]) == data
    assert query(engine, "SELECT count(*) FROM features_parcels") == [(3,)]


def remade(engine: Engine, bucket: Bucket, pipelines: Path, publisher: Publisher) -> Handlers:
    workbenches = make_workbenches(pipelines)
    attempts = Attempts(engine, bucket, workbenches, 1 << 20)
    return Handlers(engine, bucket, Ingestor(engine, attempts, 30), Relay(engine, publisher), workbenches)


def test_any_text_reaches_postgres_as_it_was(handlers: Handlers, bucket: Bucket, engine: Engine) -> None:
    keys = ["\\.", "a\nb", 'q"q', "tab\tx", "\\N", "é🙂", "cr\rx", "|"]
    sink = io.StringIO(newline="")
    rows = [[key, "2024-01-01T10:00:00Z", "1", "north", "5"] for key in keys]
    csv.writer(sink, quoting=csv.QUOTE_ALL).writerows([HEADER.split(","), *rows])
    upload(bucket, handlers, "raw/parcels/1.csv", sink.getvalue())
    escaped = {key.replace("\\", "\\\\").replace("|", "\\|") for key in keys}
    assert {key for (key,) in query(engine, "SELECT _entity FROM features_parcels")} == escaped
    assert {key for (key,) in query(engine, "SELECT entity FROM outcomes")} == escaped


def test_a_key_that_no_index_holds_is_refused(handlers: Handlers, bucket: Bucket) -> None:
    upload(bucket, handlers, "raw/parcels/1.csv", f"{GOOD}{'é' * 501},2024-01-01T10:00:00Z,1,north,5\n")
    assert only(handlers)["reasons"] == {"entity key: longer than 1000 bytes": 1}


def test_the_http_routes_ingest_list_and_reconcile(handlers: Handlers, bucket: Bucket) -> None:
    client = create_app(handlers, None).test_client()
    generation = bucket.write_if("raw/parcels/1.csv", GOOD.encode(), None)
    attributes = {"eventType": "OBJECT_FINALIZE", "bucketId": bucket.name, "objectId": "raw/parcels/1.csv"}
    message = {"messageId": "1", "attributes": attributes | {"objectGeneration": str(generation)}}
    assert client.post("/events/raw-data-uploaded", json={"message": message}).status_code == 204
    (listed,) = client.get("/pipelines/parcels/ingestions").get_json()["ingestions"]
    assert (listed["object"], listed["accepted"]) == ("raw/parcels/1.csv", 3)
    assert client.get("/pipelines/none/ingestions").status_code == 404
    assert client.post("/tasks/reconcile").get_json()["found"] == 0
    assert client.get("/health/ready").status_code == 200
