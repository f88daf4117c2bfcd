"""A small production in a real bucket: two raw files, what etl made of them, a trained release, recorded requests."""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from esteira.bucket import Bucket
from esteira.dataset import Manifest, encode_manifest, manifest_path
from esteira.events import Message, PredictionsServed, decode
from esteira.pipeline import LoadedPipeline, load_pipeline
from esteira.release import Pointer, Release, pointer_path, release_path
from esteira.samples import Sample, SampledPrediction, sample_path
from esteira.statement import compile_statement
from esteira_cli.stack.bucket import create as create_bucket
from etl.manifests import next_manifest
from etl.parts import Source, encode_part
from etl.prepare import Preparation
from etl.records import Records
from etl.source import check_header, unpack
from etl.workbench import Workbench
from following import Following
from pages import ROOT
from predictor.app import create_app
from predictor.prediction_log import PredictionLog
from predictor.sampling import Sampler
from publishers import publish_spools
from trainer.data import read_local_data
from trainer.examples import find_examples
from trainer.exporting import export_proved
from trainer.fit import MODEL_TASK, fit_candidates, make_matrices
from trainer.releasing import Origin, pack, upload
from trainer.rows import DatasetVersion, TrainingRun

PIPELINE = "shop"
PIPELINE_YAML = """\
pipeline: shop
task: classification
entity: [id]
event_time: at
label: {name: late, sql: delay > 15}
columns:
  id: {type: integer}
  at: {type: timestamp}
  price: {type: number, min: 0, nullable: true}
  town: {type: string, max_length: 20, nullable: true}
  delay: {type: integer, nullable: true, known: after}
reference:
  towns: {file: towns.csv, columns: {town: string, size: integer}}
training:
  learners: [hist_gradient_boosting]
  params: {hist_gradient_boosting: {max_iter: 15, max_leaf_nodes: 7}}
  min_rows: 500
gates: {max_loss_to_champion: 0.005, slices: [town]}
"""
FEATURES_SQL = """\
SELECT raw.price, raw.town, towns.size
FROM raw LEFT JOIN towns ON towns.town = raw.town
"""
TOWNS = ("Paris", "Rome", "Oslo")
ROWS = 4000
SAMPLED = 120
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = ("shared/src", "services/predictor/src", "services/etl/src", "services/trainer/src")


class Mailbox:
    """Takes messages as Pub/Sub does."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def publish(self, message: Message) -> None:
        self.messages.append(message)


class Tree:
    """A work tree with the services' sources and the pipeline, to be changed and validated."""

    def __init__(self, folder: Path, bucket: str) -> None:
        self.folder = folder
        self.bucket = bucket
        self.reports = folder.parent / "reports"
        self.environment: dict[str, str] = {"GITHUB_STEP_SUMMARY": ""}

    def change(self, path: str, old: str, new: str) -> None:
        """Replaces the one place where `old` stands."""
        file = self.folder / path
        text = file.read_text()
        assert text.count(old) >= 1, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new))

    def validate(self, *options: str, bucket: str | None = "") -> tuple[int, Any, str]:
        """Runs the command in the tree; gives its status, report.json and report.md.

        Args:
            options: of the command.
            bucket: None names none, so that the local stack's is taken.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(self.folder / source) for source in SOURCES),
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        where = [] if bucket is None else ["--bucket", bucket or self.bucket, "--project", "esteira-local"]
        given = ["--base", "HEAD", "--report-dir", str(self.reports), *where, *options]
        command = [sys.executable, "-m", "esteira_cli.main", "validate", *given]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        if not (self.reports / "report.json").is_file():
            return done.returncode, None, done.stdout + done.stderr
        report = msgspec.json.decode((self.reports / "report.json").read_bytes())
        return done.returncode, report, (self.reports / "report.md").read_text()


@pytest.fixture(scope="module")
def production(bucket_server: str, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """A bucket with a champion, made by the services' own code as it is."""
    name = f"bucket-{uuid4().hex[:12]}"
    create_bucket(bucket_server, "esteira-local", name)
    folder = tmp_path_factory.mktemp("production")
    bucket = Bucket(name, "esteira-local", bucket_server)
    pipeline = load_pipeline(write_pipeline(folder / "pipelines"))
    manifest = _prepare(bucket, pipeline, folder / "parts")
    release, sha256 = _train(bucket, pipeline, manifest, folder)
    _record(bucket, release, sha256, folder)
    return bucket


@pytest.fixture
def tree(production: Bucket, tmp_path: Path) -> Iterator[Tree]:
    folder = tmp_path / "tree"
    for source in SOURCES:
        shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
    write_pipeline(folder / "pipelines")
    (folder / ".gitignore").write_text("__pycache__/\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "As it was"]):
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)
    yield Tree(folder, production.name)
    shutil.rmtree(folder)


def write_pipeline(folder: Path) -> Path:
    home = folder / PIPELINE
    home.mkdir(parents=True)
    (home / "pipeline.yaml").write_text(PIPELINE_YAML)
    (home / "features.sql").write_text(FEATURES_SQL)
    (home / "towns.csv").write_text("town,size\nParis,3\nRome,2\nOslo,1\n")
    return home


def raw_row(index: int) -> dict[str, Any]:
    random = np.random.default_rng(index)
    price = None if index % 11 == 0 else round(float(random.uniform(0, 100)), 2)
    town = TOWNS[int(random.integers(len(TOWNS)))]
    return {"id": index, "at": f"2026-01-{index % 28 + 1:02d}T10:00:00Z", "price": price, "town": town}


def _csv(first: int, last: int) -> bytes:
    lines = ["id,at,price,town,delay"]
    for index in range(first, last):
        row = raw_row(index)
        delay = (
            (row["price"] or 30) / 3
            + 5 * TOWNS.index(row["town"])
            + np.random.default_rng(10_000 + index).normal(-8, 6)
        )
        price = "" if row["price"] is None else row["price"]
        lines.append(f"{row['id']},{row['at']},{price},{row['town']},{round(delay)}")
    lines.append("nobody,2026-01-01,1,Paris,3")
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def _prepare(bucket: Bucket, pipeline: LoadedPipeline, folder: Path) -> Manifest:
    workbench, manifest = Workbench(pipeline), None
    folder.mkdir()
    for name, first in (("a.csv.gz", 0), ("b.csv.gz", ROWS // 2)):
        path, raw = f"raw/{PIPELINE}/{name}", _csv(first, first + ROWS // 2)
        generation = bucket.write_if(path, raw, 0, "application/gzip")
        data = unpack(name, raw, 1 << 30)
        names = check_header(data, pipeline.columns)
        with workbench.cursor() as cursor:
            preparation = Preparation(workbench, cursor, names)
            refusals = [r for batch in Records(data).batches(len(names), 1000) for r in preparation.add(batch)]
            assert len(refusals) == 1
            table = preparation.features()
        source = Source(ingestion_id=uuid4(), object=path, generation=generation)
        part, content = encode_part(table, PIPELINE, source)
        bucket.upload_once(part.path, content)
        (folder / f"{part.sha256}.parquet").write_bytes(content)
        manifest = next_manifest(manifest, PIPELINE, workbench.statement, part, MOMENT)
        bucket.upload_once(manifest_path(PIPELINE, manifest.version), encode_manifest(manifest))
    workbench.close()
    assert manifest is not None
    return manifest


def _train(bucket: Bucket, pipeline: LoadedPipeline, manifest: Manifest, folder: Path) -> tuple[Release, str]:
    data = read_local_data(folder / "parts", manifest, pipeline.spec.training.holdout)
    statement = compile_statement(pipeline)
    matrices = make_matrices(statement, data)
    best = fit_candidates(pipeline, matrices, lambda: None)[0]
    path = manifest_path(PIPELINE, manifest.version)
    dataset = DatasetVersion(
        pipeline=PIPELINE,
        number=manifest.number,
        version=manifest.version,
        manifest=path,
        rows=manifest.rows,
        labelled=manifest.labelled,
    )
    run = TrainingRun(
        id=uuid4(),
        pipeline=PIPELINE,
        number=1,
        request_key="first",
        reason="test",
        requested_by="test",
        dataset_number=manifest.number,
        status="running",
        fence=1,
        attempts=1,
        traceparent=None,
    )
    origin = Origin(
        pipeline=pipeline,
        statement=statement,
        run=run,
        dataset=dataset,
        manifest=manifest,
        code_version="test",
        mlflow_run_id="none",
    )
    examples = find_examples(pipeline, _csv(0, 50), data.frame)
    exported = export_proved(best.estimator, matrices, MODEL_TASK[pipeline.spec.task], pipeline.spec.training.seed)
    assert exported.trees is not None
    home = folder / "release"
    home.mkdir()
    packed = pack(home, origin, data, matrices, best, exported, examples, [])
    upload(bucket, packed)
    return packed.release, packed.sha256


def _record(bucket: Bucket, release: Release, sha256: str, folder: Path) -> None:
    """Promotes the release, asks a predictor, and writes what the monitor would."""
    pointer = Pointer(
        pipeline=PIPELINE,
        generation=1,
        version=release.version,
        path=release_path(PIPELINE, release.version),
        sha256=sha256,
        promoted_at=MOMENT,
    )
    bucket.write_if(pointer_path(PIPELINE), msgspec.json.encode(pointer), 0)
    mailbox = Mailbox()
    log = PredictionLog(mailbox, folder / "spool", Sampler(1.0))  # type: ignore[arg-type]
    following = Following(bucket, folder)
    following.refresh()
    client = create_app(following.servings, log, mailbox, None).test_client()  # type: ignore[arg-type]
    rows = [raw_row(ROWS + index) for index in range(SAMPLED)]
    answer = client.post(f"/pipelines/{PIPELINE}/predict", json={"rows": rows})
    assert answer.status_code == 200
    publish_spools(mailbox, folder / "spool")
    (event,) = [decode(PredictionsServed, message.data, message.attributes) for message in mailbox.messages]
    threshold = release.threshold or 0.5
    predictions = [
        SampledPrediction(id=p.id, row=p.row or {}, features=p.features, score=p.score, label=p.score >= threshold)
        for p in event.predictions
    ]
    sample = Sample(pipeline=PIPELINE, version=release.version, predictions=predictions)
    bucket.write_if(sample_path(PIPELINE, release.version), msgspec.json.encode(sample), 0)
