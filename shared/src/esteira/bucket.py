"""The bucket: immutable objects written once, and pointers written by compare-and-set.

Every write carries a precondition on the object's generation, so that repeating it after a lost answer is safe.
Errors of the client arrive as `NotFound`, `Conflict` (the precondition failed) and `Unavailable` (all else).
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import msgspec
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from esteira.exceptions import Conflict, NotFound, Unavailable

MUST_NOT_EXIST = 0
CHUNK = 1 << 20


class StoredObject(msgspec.Struct, frozen=True):
    """An object as a listing shows it."""

    path: str
    generation: int
    size: int
    updated: datetime


class Bucket:
    """One bucket; threads may share it, and each process makes its own client at first use.

    Args:
        name: the bucket's name, without `gs://`.
        project: the Google Cloud project.
        emulator: the address of an emulator, as in STORAGE_EMULATOR_HOST; None looks at that variable.
        timeout: seconds for one request.
        patience: seconds for one call with its retries.
    """

    def __init__(
        self, name: str, project: str, emulator: str | None = None, timeout: float = 20.0, patience: float = 45.0
    ) -> None:
        self.name = name
        self._project = project
        self._emulator = emulator or os.environ.get("STORAGE_EMULATOR_HOST")
        self._lock = threading.Lock()
        self._made: tuple[int, storage.Client] | None = None
        self._options: dict[str, Any] = {"timeout": timeout, "retry": DEFAULT_RETRY.with_timeout(patience)}

    def create(self) -> None:
        """Makes the bucket itself; one that is there already is fine.

        Raises:
            Unavailable: Cloud Storage does not answer.
        """
        try:
            with self._errors(""):
                self._client().create_bucket(self.name, **self._options)
        except Conflict:
            return

    def upload_once(self, path: str, data: bytes | Path, content_type: str = "application/octet-stream") -> None:
        """Writes an immutable object; the same bytes there already are fine.

        Raises:
            Conflict: other bytes are there.
            Unavailable: Cloud Storage does not answer.
        """
        try:
            self._upload(path, data, MUST_NOT_EXIST, content_type)
        except Conflict:
            if self._sha256(path) != _sha256_of(data):
                raise Conflict(f"{self.url(path)} exists with other bytes; it is never overwritten") from None

    def read(self, path: str, sha256: str | None = None) -> bytes:
        """Reads an object whole.

        Raises:
            NotFound: there is no such object.
            Conflict: its bytes are not those of `sha256`.
            Unavailable: Cloud Storage does not answer.
        """
        with self._errors(path):
            data: bytes = self._blob(path).download_as_bytes(**self._options)
        self._compare(path, hashlib.sha256(data).hexdigest(), sha256)
        return data

    def download(self, path: str, file: Path, sha256: str | None = None) -> None:
        """Reads an object into `file`, which appears only when it is whole and verified. Raises as `read` does."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as part:
            temporary = Path(part.name)
            try:
                self._compare(path, self._copy_into(path, part), sha256)
                part.flush()
                os.fsync(part.fileno())
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)

    def read_versioned(self, path: str) -> tuple[bytes, int] | None:
        """Reads an object and the generation that these bytes have; None where there is no such object."""
        blob = self._blob(path)
        try:
            with self._errors(path):
                data: bytes = blob.download_as_bytes(**self._options)
        except NotFound:
            return None
        return data, int(blob.generation)

    def write_if(self, path: str, data: bytes, generation: int | None, content_type: str = "application/json") -> int:
        """Writes if the object still has `generation`, where None or 0 says that there is none yet.

        Returns:
            The new generation. Where the same bytes are there already, theirs: a repeated write succeeds.

        Raises:
            Conflict: another writer was first.
            Unavailable: Cloud Storage does not answer.
        """
        try:
            return self._upload(path, data, generation or MUST_NOT_EXIST, content_type)
        except Conflict:
            found = self.read_versioned(path)
            if found is None or found[0] != data:
                raise
            return found[1]

    def list(self, prefix: str) -> list[StoredObject]:
        """Lists the objects whose path begins with `prefix`, in the order of their paths."""
        with self._errors(prefix):
            blobs = self._client().list_blobs(self.name, prefix=prefix, **self._options)
            return [StoredObject(blob.name, int(blob.generation), blob.size, blob.updated) for blob in blobs]

    def copy(self, source: str, destination: str) -> None:
        """Copies an object within the bucket, once: the same bytes there already are fine.

        Raises:
            NotFound: there is no `source`.
            Conflict: other bytes are at `destination`.
            Unavailable: Cloud Storage does not answer.
        """
        try:
            if not self._exists(destination):  # emulators copy over it, whatever the precondition says
                self._rewrite(source, destination)
                return
        except Conflict:
            pass
        if self._sha256(source) != self._sha256(destination):
            raise Conflict(f"{self.url(destination)} exists with other bytes; it is never overwritten")

    def url(self, path: str) -> str:
        """The object's `gs://` address."""
        return f"gs://{self.name}/{path}"

    def _upload(self, path: str, data: bytes | Path, generation: int, content_type: str) -> int:
        blob = self._blob(path)
        options = {"if_generation_match": generation, "content_type": content_type, **self._options}
        with self._errors(path):
            if isinstance(data, Path):
                blob.upload_from_filename(str(data), **options)
            else:
                blob.upload_from_string(data, **options)
        return int(blob.generation)

    def _rewrite(self, source: str, destination: str) -> None:
        target, token = self._blob(destination), None
        with self._errors(source):
            while True:
                token, _, _ = target.rewrite(
                    self._blob(source), token=token, if_generation_match=MUST_NOT_EXIST, **self._options
                )
                if token is None:
                    return

    def _exists(self, path: str) -> bool:
        with self._errors(path):
            return bool(self._blob(path).exists(**self._options))

    def _copy_into(self, path: str, file: IO[bytes]) -> str:
        with self._errors(path):
            self._blob(path).download_to_file(file, **self._options)
        file.seek(0)
        return _digest(file)

    def _sha256(self, path: str) -> str:
        with NamedTemporaryFile() as file:
            return self._copy_into(path, file)

    def _compare(self, path: str, found: str, expected: str | None) -> None:
        if expected is not None and found != expected:
            raise Conflict(f"{self.url(path)} has sha256 {found}, expected {expected}: it was changed or cut off")

    def _blob(self, path: str) -> Any:
        return self._client().bucket(self.name).blob(path)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._make_client()
            return self._made[1]

    def _make_client(self) -> Any:
        if not self._emulator:
            return storage.Client(project=self._project)
        options = {"api_endpoint": _with_scheme(self._emulator)}
        return storage.Client(
            project=self._project,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options=options,
        )

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except google_errors.NotFound as error:
            raise NotFound(f"{self.url(path)} does not exist") from error
        except (google_errors.PreconditionFailed, google_errors.Conflict) as error:
            raise Conflict(f"{self.url(path)} was written by another meanwhile") from error
        except InvalidResponse as error:
            raise _from_response(self.url(path), error) from error
        except (google_errors.GoogleAPIError, GoogleAuthError, RequestException, DataCorruption, OSError) as error:
            raise Unavailable(f"{self.url(path)}: {type(error).__name__}: {error}") from error


def _from_response(url: str, error: InvalidResponse) -> Exception:
    """Media requests that the client did not translate."""
    status: int = error.response.status_code
    known = {404: NotFound(f"{url} does not exist"), 412: Conflict(f"{url} was written by another meanwhile")}
    return known.get(status) or Unavailable(f"{url}: {error}")


def _sha256_of(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return _digest(file)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _with_scheme(address: str) -> str:
    return address if "://" in address else f"http://{address}"
