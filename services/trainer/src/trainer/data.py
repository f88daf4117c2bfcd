"""Reads a dataset version from the bucket: its labelled rows as one frame."""

import hashlib
import io
import logging
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from esteira.bucket import Bucket
from esteira.dataset import ENTITY, EVENT_TIME, LABEL, Manifest, Part, decode_manifest
from esteira.exceptions import BadInput, NotFound, Problem
from esteira.pipeline import Holdout
from esteira.scoring import Array
from trainer.split import Mask, held_out, held_out_days

logger = logging.getLogger(__name__)


class Data(msgspec.Struct, frozen=True):
    """Labelled rows, those to fit on and those held out."""

    frame: pd.DataFrame
    label: Array
    holdout: Mask

    @property
    def train(self) -> pd.DataFrame:
        """The rows to fit on."""
        return self.frame[~self.holdout]

    @property
    def test(self) -> pd.DataFrame:
        """The held-out rows."""
        return self.frame[self.holdout]

    @property
    def train_label(self) -> Array:
        """Of the rows to fit on."""
        return self.label[~self.holdout]

    @property
    def test_label(self) -> Array:
        """Of the held-out rows."""
        return self.label[self.holdout]


def read_manifest(bucket: Bucket, path: str) -> Manifest:
    """Reads the manifest of a dataset version.

    Raises:
        BadInput: it is no manifest.
        NotFound: it is not there.
        Unavailable: the bucket does not answer.
    """
    try:
        return decode_manifest(bucket.read(path))
    except msgspec.MsgspecError as error:
        raise BadInput([Problem(path, f"is no manifest of a dataset: {error}; upload the data again")]) from error


def read_data(bucket: Bucket, manifest: Manifest, holdout: Holdout, cache: Path) -> Data:
    """Reads and verifies the parts, and drops rows without a label.

    Parts are kept in `cache` by their hash; a part there whose bytes changed is fetched again.

    Raises:
        Conflict: a part in the bucket is not what the manifest says.
        NotFound: a part is missing.
        Unavailable: the bucket does not answer.
    """
    files = cache / "parts"
    return make_data(
        [_decode(part, _verified(bucket, part, files)) for part in manifest.parts if part.labelled], holdout
    )


def read_local_data(files: Path, manifest: Manifest, holdout: Holdout) -> Data:
    """Reads the parts of a manifest from a folder that holds each as `<sha256>.parquet`.

    Raises:
        BadInput: a part is not what the manifest says.
        NotFound: a part is missing.
    """
    return make_data([_decode(part, _local(files, part)) for part in manifest.parts if part.labelled], holdout)


def make_data(tables: list[pa.Table], holdout: Holdout) -> Data:
    """Puts parts together, and drops rows without a label."""
    table = pa.concat_tables(tables)
    table = table.filter(table[LABEL].is_valid())
    label: Array = table[LABEL].to_numpy().astype(np.float64)
    mask = _holdout(table, holdout)
    frame = table.drop_columns([LABEL]).to_pandas()
    facts = {"rows": len(label), "held_out": int(mask.sum()), "parts": len(tables)}
    logger.info("dataset read", extra=facts)
    return Data(frame, label, mask)


def _decode(part: Part, data: bytes) -> pa.Table:
    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowInvalid as error:
        raise BadInput([Problem(part.path, f"is no Parquet file: {error}; upload the data again")]) from error
    if LABEL not in table.column_names or ENTITY not in table.column_names:
        raise NotFound(f"{part.path} has no column {LABEL} or {ENTITY}; upload the data again")
    return table


def _local(files: Path, part: Part) -> bytes:
    file = files / f"{part.sha256}.parquet"
    if not file.is_file():
        raise NotFound(f"{file} does not exist; fetch {part.path}")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise BadInput([Problem(str(file), "is not what the manifest says; fetch it again")])
    return data


def _verified(bucket: Bucket, part: Part, files: Path) -> bytes:
    file = files / f"{part.sha256}.parquet"
    if file.is_file():
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() == part.sha256:
            return data
    bucket.download(part.path, file, part.sha256)
    return file.read_bytes()


def _holdout(table: pa.Table, holdout: Holdout) -> Mask:
    if holdout.by == "day":
        times: npt.NDArray[np.datetime64] = table[EVENT_TIME].cast(pa.timestamp("us")).to_numpy()
        return held_out_days(times, holdout.share)
    return held_out(table[ENTITY].to_pylist(), holdout.share)
