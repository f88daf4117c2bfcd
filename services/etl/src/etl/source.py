"""The bytes of an uploaded file, and what refuses a file whole."""

import gzip
import io
import zlib
from collections.abc import Sequence

from esteira.bucket import Bucket
from esteira.exceptions import PermanentError
from esteira.schema import Column
from etl.records import NotARecord, Records

_GZIP = b"\x1f\x8b"
_BLANK = b" \t\r\n"
_SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive (as .xlsx files are)",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"BZh": "compressed with bzip2",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
}
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
_UPLOAD = "upload a CSV file (comma, UTF-8, a header line), plain or compressed with gzip"


class FileRefused(PermanentError):
    """The file is refused whole; the message says why and what to do."""


class Gone(PermanentError):
    """The generation that was announced is not there to be read."""


def fetch(bucket: Bucket, name: str, generation: int, limit: int) -> bytes:
    """Reads one generation of an object.

    Raises:
        Gone: it was deleted or replaced.
        FileRefused: it has more than `limit` bytes.
    """
    listed = next((found for found in bucket.list(name) if found.path == name), None)
    if listed is not None and listed.generation == generation and listed.size > limit:
        raise FileRefused(f"has {listed.size} bytes, at most {limit} are taken; split it into smaller files")
    found = bucket.read_versioned(name)
    if found is None:
        raise Gone("deleted before it was read; upload it again")
    if found[1] != generation:
        raise Gone(f"replaced by generation {found[1]} before it was read")
    return found[0]


def unpack(name: str, data: bytes, limit: int) -> bytes:
    """Undoes gzip, by the name's ending or the data's first bytes.

    Raises:
        FileRefused: it is no gzip, a damaged one, or has more than `limit` bytes.
    """
    if data.startswith(_GZIP):
        data = _gunzip(data, limit)
    elif name.endswith(".gz") and data:
        raise FileRefused(f"its name ends in .gz and it is no gzip file; {_UPLOAD}")
    if len(data) > limit:
        raise FileRefused(f"has more than {limit} bytes; split it into smaller files")
    return data


def _gunzip(data: bytes, limit: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileRefused(f"a damaged gzip file ({error}); compress and upload it again") from error


def check_header(data: bytes, columns: Sequence[Column]) -> list[str]:
    """Finds the names in the header line, in the file's order.

    Raises:
        FileRefused: the file is empty, no CSV, or its header is not the pipeline's columns.
    """
    _check_content(data)
    try:
        names = Records(data[: 1 + data.find(b"\n") or len(data)]).header()
    except NotARecord as error:
        raise FileRefused(f"no CSV file: line 1 {error}; {_UPLOAD}") from error
    _check_names(names, [column.name for column in columns])
    return names


def _check_content(data: bytes) -> None:
    if not data.strip(_BLANK):
        raise FileRefused(f"the file is empty; {_UPLOAD}")
    for signature, what in _SIGNATURES.items():
        if data.startswith(signature):
            raise FileRefused(f"no CSV file but {what}; {_UPLOAD}")
    if data[:64].lstrip(_BLANK).lower().startswith(_MARKUP):
        raise FileRefused(f"no CSV file but HTML or XML; {_UPLOAD}")


def _check_names(names: list[str], expected: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    unknown = [name for name in names if name not in expected]
    missing = [name for name in expected if name not in names]
    told = [
        *_told("repeats", repeated, "rename or remove one of each"),
        *_told("has unknown", unknown, "remove them, or declare them in pipeline.yaml"),
        *_told("lacks", missing, "add them; their values may be missing where pipeline.yaml says nullable"),
    ]
    if told and len(names) == 1 and len(expected) > 1:
        told.append("it has one field only: is the delimiter a comma?")
    if told:
        raise FileRefused(f"the header {'; '.join(told)}")


def _told(what: str, names: list[str], remedy: str) -> list[str]:
    shown = ", ".join(repr(name[:60]) for name in names[:20]) + (" …" if len(names) > 20 else "")
    return [f"{what} column{'s' if len(names) > 1 else ''} {shown} ({remedy})"] if names else []
