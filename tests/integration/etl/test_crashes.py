"""Killed before any step and taken up again, etl loses nothing and doubles nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from esteira.bucket import Bucket
from esteira.dataset import Manifest, decode_manifest

WORKER = Path(__file__).with_name("crash_worker.py")
HEADER = "parcel,sent,weight,depot,days"
FILES = 22
KILLED = 77


def content(number: int) -> str:
    rows = [f"p{number}-{row},2024-01-0{row}T10:00:00Z,{row},north,{2 * row}" for row in (1, 2, 3)]
    return "\n".join([HEADER, *rows, "bad,row", "p0-1,2024-01-01T00:00:00Z,1,north,1"])


def calm_twin(pipelines: Path) -> None:
    """A pipeline of the same features whose files nobody disturbs."""
    folder = pipelines / "calm"
    folder.mkdir()
    spec = (pipelines / "parcels" / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(spec.replace("pipeline: parcels", "pipeline: calm"))
    (folder / "features.sql").write_text((pipelines / "parcels" / "features.sql").read_text())


def query(engine: Engine, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def state(engine: Engine, bucket: Bucket, pipeline: str) -> dict[str, Any]:
    """All that files leave behind, without ids and times."""
    newest = query(engine, "SELECT manifest FROM datasets WHERE pipeline = :p ORDER BY number DESC LIMIT 1", p=pipeline)
    manifest: Manifest = decode_manifest(bucket.read(newest[0][0]))
    judged = "SELECT status, rows, accepted, quarantined, reasons FROM ingestions WHERE pipeline = :p ORDER BY object"
    numbers = "SELECT number, rows, labelled FROM datasets WHERE pipeline = :p ORDER BY number"
    told = "SELECT topic, count(*) FROM outbox WHERE data::jsonb->>'pipeline' = :p GROUP BY 1 ORDER BY 1"
    quarantines = query(engine, "SELECT quarantine FROM ingestions WHERE pipeline = :p ORDER BY object", p=pipeline)
    return {
        "features": query(engine, f"SELECT _entity, _event_time, _label, weight FROM features_{pipeline} ORDER BY 1"),
        "outcomes": query(engine, "SELECT entity, label FROM outcomes WHERE pipeline = :p ORDER BY 1", p=pipeline),
        "parts": [(part.sha256, part.rows, part.labelled) for part in manifest.parts],
        "ingestions": query(engine, judged, p=pipeline),
        "datasets": query(engine, numbers, p=pipeline),
        "told": query(engine, told, p=pipeline),
        "quarantined": [len(bucket.read(path)) > 0 for (path,) in quarantines],
    }


def test_a_worker_killed_before_any_step_leaves_what_an_undisturbed_one_leaves(
    engine: Engine, bucket: Bucket, pipelines: Path, database_url: str, tmp_path: Path
) -> None:
    calm_twin(pipelines)
    settings = {
        "database_url": database_url,
        "bucket": bucket.name,
        "pipelines": str(pipelines),
        "published": str(tmp_path / "published"),
        "killed": [(f"raw/parcels/{number:02}.csv", content(number)) for number in range(FILES)],
        "calm": [(f"raw/calm/{number:02}.csv", content(number)) for number in range(FILES)],
    }
    done = subprocess.run(
        [sys.executable, str(WORKER), json.dumps(settings)], capture_output=True, text=True, check=False, timeout=240
    )
    codes = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [recovered for _, recovered in codes] == [0] * (FILES + 1), done.stderr
    kills = [code for code, _ in codes[:FILES]]
    steps = kills.count(KILLED)
    assert kills == [KILLED] * steps + [0] * (FILES - steps)
    assert 15 <= steps < FILES  # every step was deadly once, and then there was none left
    assert state(engine, bucket, "parcels") == state(engine, bucket, "calm")
    published = (tmp_path / "published").read_text().split()[1::2]
    assert {found for (found,) in query(engine, "SELECT attributes->>'ce-id' FROM outbox")} == set(published)
    assert query(engine, "SELECT count(*) FROM outbox WHERE published_at IS NULL") == [(0,)]
