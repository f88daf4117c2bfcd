"""Files that etl writes: Parquet for the bucket, and CSV for Postgres's COPY."""

import hashlib
import io
from collections.abc import Callable, Iterable
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from esteira.dataset import ENTITY, EVENT_TIME, LABEL, LINE, Part, part_path
from etl.prepare import Refusal

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", '"': "\\042"}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The raw file of a part."""

    ingestion_id: UUID
    object: str | None
    generation: int | None


def encode_part(table: pa.Table, pipeline: str, source: Source, proved_form: str | None = None) -> tuple[Part, bytes]:
    """A part's description and bytes; the same table gives the same bytes.

    Args:
        table: as `Preparation.features` gives it.
        pipeline: its name.
        source: the raw file.
        proved_form: see `Part.sqlite_sha256`.
    """
    data = _parquet(table)
    digest = hashlib.sha256(data).hexdigest()
    times = pc.min_max(table[EVENT_TIME])
    part = Part(
        path=part_path(pipeline, digest),
        sha256=digest,
        rows=table.num_rows,
        labelled=table.num_rows - table[LABEL].null_count,
        ingestion_id=source.ingestion_id,
        object=source.object,
        generation=source.generation,
        first_event_time=times["min"].as_py(),
        last_event_time=times["max"].as_py(),
        sqlite_sha256=proved_form or msgspec.UNSET,
    )
    return part, data


def encode_quarantine(refusals: Iterable[Refusal], raw: Callable[[int], bytes]) -> bytes:
    """The refused rows by line: `line`, `text` as it came, `reasons`, and `bytes` where the text is not UTF-8."""
    rows = sorted(refusals, key=lambda refusal: refusal.line)
    raws = [raw(refusal.line) for refusal in rows]
    texts = [record.decode(errors="backslashreplace") for record in raws]
    table = pa.table(
        {
            "line": pa.array([refusal.line for refusal in rows], pa.int64()),
            "text": pa.array(texts, pa.string()),
            "reasons": pa.array(
                [[str(reason) for reason in refusal.reasons] for refusal in rows], pa.list_(pa.string())
            ),
            "bytes": pa.array([None if _is_utf8(record) else record for record in raws], pa.binary()),
        }
    )
    return _parquet(table)


def encode_copy(table: pa.Table, ingestion_id: UUID) -> bytes:
    """The part in the text form of Postgres's COPY, without `_line` and with the ingestion's id as last column."""
    return _copy_text(table.drop_columns([LINE]).append_column("id", pa.array([str(ingestion_id)] * table.num_rows)))


def encode_outcomes(table: pa.Table) -> bytes:
    """Entity, label and event time of the labelled rows, in the text form of Postgres's COPY."""
    return _copy_text(table.filter(pc.is_valid(table[LABEL])).select([ENTITY, LABEL, EVENT_TIME]))


def _copy_text(table: pa.Table) -> bytes:
    """https://www.postgresql.org/docs/current/sql-copy.html, text format; quotes as octal, so that none is needed."""
    columns = {name: _escaped(table[name]) for name in table.column_names}
    sink = io.BytesIO()
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pyarrow.csv.write_csv(pa.table(columns), sink, options)
    return sink.getvalue()


def _escaped(values: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = values.cast(pa.string())
    if pa.types.is_string(values.type):
        for plain, escaped in _ESCAPES.items():
            texts = pc.replace_substring(texts, plain, escaped)
    return pc.fill_null(texts, "\\N")


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _is_utf8(record: bytes) -> bool:
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    return True
