"""Asks a predictor over HTTP, and asks again where that can help."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, Self
from urllib.parse import quote, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from esteira_cli.client.encoding import bodies
from esteira_cli.client.errors import PredictorUnavailable, error_of


class Frame(Protocol):
    """What is used of a pandas DataFrame."""

    @property
    def columns(self) -> Any:
        """The names."""

    def itertuples(self, index: bool = ..., name: str | None = ...) -> Any:
        """The rows."""


Rows = Iterable[Mapping[str, Any]] | Frame
Token = str | Callable[[], str]

TIMEOUT_S: Final = (5.0, 60.0)
"""To connect, and between two bytes of an answer."""
RETRIES: Final = 4
AGAIN: Final = (429, 502, 503, 504)
BACKOFF_S: Final = 0.5
BACKOFF_MAX_S: Final = 20.0
RETRY_AFTER_MAX_S: Final = 60
"""Longest wait that a Retry-After is granted; then the service is asked all the same."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Predictions(list[dict[str, Any]]):
    """One dictionary for each row, in the order of the rows: `prediction_id`, `score`, `label`, `model_version`.

    `label` is None for a regression. `pandas.DataFrame(predictions)` makes a frame of it.
    """

    @property
    def scores(self) -> list[float]:
        """The scores alone."""
        return [one["score"] for one in self]

    @property
    def labels(self) -> list[bool | None]:
        """Whether each score reaches the release's threshold."""
        return [one["label"] for one in self]

    @property
    def ids(self) -> list[str]:
        """The predictions' ids."""
        return [one["prediction_id"] for one in self]

    @property
    def model_version(self) -> str | None:
        """The version that answered last; several may answer many rows. None without rows."""
        return self[-1]["model_version"] if self else None


class Client:
    """A predictor at one address. Threads may share it.

    Args:
        url: the predictor's, such as `http://127.0.0.1:8080`.
        api_key: sent as `X-Api-Key`.
        token: sent as `Authorization: Bearer`; a function is asked before every request, so that it may renew it.
        timeout: seconds to connect and to wait for bytes of the answer, or one number for both.
        retries: how often a request is sent again that met no answer, or 429, 502, 503 or 504. Pauses grow from half
            a second, with jitter; where the answer has a Retry-After, that is heard, up to a minute.
        connections: how many are kept open.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        token: Token | None = None,
        timeout: float | tuple[float, float] = TIMEOUT_S,
        retries: int = RETRIES,
        connections: int = 10,
    ) -> None:
        self.url = url.rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"{url!r} is no address: expected one such as http://127.0.0.1:8080")
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = urlsplit(self.url).hostname not in _LOOPBACK  # no proxy leads to this machine
        self._session.auth = _Credentials(api_key, token)
        adapter = HTTPAdapter(max_retries=_retry(retries), pool_maxsize=connections, pool_block=True)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def predict(self, pipeline: str, rows: Rows) -> Predictions:
        """Scores raw rows: the columns that files have, without those known only afterwards.

        More rows than one request takes are sent in several, one after another.

        Args:
            pipeline: its name.
            rows: dictionaries, or a pandas DataFrame, of which columns that the pipeline does not take are left out
                with a warning. Missing values may be None, NaN, NaT or NA; times may be datetimes or Timestamps, and
                are in UTC where they have no zone.

        Raises:
            ValueError: the DataFrame has no column that the pipeline takes.
            PredictorRefused: a row breaks the pipeline's schema, or there is no such pipeline, or no access.
            PredictorUnavailable: no answer, also after the retries.
        """
        return self._predictions(pipeline, "rows", self._taken(pipeline, rows) if _is_frame(rows) else rows)

    def predict_features(self, pipeline: str, features: Rows) -> Predictions:
        """Scores features, for callers that hold them already; else as `predict`."""
        return self._predictions(pipeline, "features", features)

    def feedback(self, pipeline: str, outcomes: Rows) -> int:
        """Says what became of rows; gives how many outcomes the predictor took.

        Args:
            pipeline: its name.
            outcomes: `{"entity": {column: value}, "label": …}`, and `event_time` where it is known.

        Raises:
            PredictorRefused: as `predict`. What was in an earlier request of several is taken all the same; to say it
                again does no harm.
            PredictorUnavailable: as `predict`.
        """
        path = f"{_path(pipeline)}/feedback"
        return sum(
            int(self._call("POST", path, body.data, body.offset)["accepted"])
            for body in bodies("outcomes", _records(outcomes))
        )

    def pipeline(self, name: str) -> dict[str, Any]:
        """A pipeline's columns, features, champion and challenger, as `GET /pipelines/<name>` tells them."""
        found: dict[str, Any] = self._call("GET", _path(name))
        return found

    def pipelines(self) -> list[dict[str, Any]]:
        """What is served, and what was refused."""
        found: list[dict[str, Any]] = self._call("GET", "/pipelines")
        return found

    def _taken(self, pipeline: str, frame: Any) -> Any:
        """The frame without the columns that the pipeline does not take."""
        names = {column["name"] for column in self.pipeline(pipeline)["columns"]}
        taken = [name for name in frame.columns if name in names]
        if not taken:
            raise ValueError(f"no column of the DataFrame is one of {pipeline}: it takes {', '.join(sorted(names))}")
        if left_out := [str(name) for name in frame.columns if name not in names]:
            warnings.warn(f"left out what {pipeline} does not take: {', '.join(left_out)}", stacklevel=3)
        return frame[taken]

    def _predictions(self, pipeline: str, name: str, rows: Rows) -> Predictions:
        found = Predictions()
        for body in bodies(name, _records(rows)):
            answer = self._call("POST", f"{_path(pipeline)}/predict", body.data, body.offset)
            found += [_prediction(one, answer["model_version"]) for one in answer["predictions"]]
            if len(found) != body.offset + body.rows:
                raise PredictorUnavailable(f"{self.url} answered {len(answer['predictions'])} of {body.rows} rows")
        return found

    def _call(self, method: str, path: str, data: bytes | None = None, offset: int = 0) -> Any:
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            answer = self._session.request(
                method, self.url + path, data=data, headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise PredictorUnavailable(f"no answer from the predictor at {self.url}: {_cause(error)}") from error
        if not 200 <= answer.status_code < 300:
            raise error_of(self.url, answer, offset)
        try:
            return msgspec.json.decode(answer.content)
        except msgspec.MsgspecError as error:
            raise PredictorUnavailable(f"{self.url} answered what is not JSON: {answer.text[:200]!r}") from error


class _Credentials(AuthBase):
    """Also without any: or else requests would look for a password in the user's .netrc."""

    def __init__(self, api_key: str | None, token: Token | None) -> None:
        self._api_key = api_key
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_key:
            request.headers["X-Api-Key"] = self._api_key
        if self._token:
            token = self._token if isinstance(self._token, str) else self._token()
            request.headers["Authorization"] = f"Bearer {token}"
        return request


def _retry(retries: int) -> Retry:
    """For every method: to predict, or to say an outcome, a second time does no harm."""
    return Retry(
        total=retries,
        allowed_methods=None,
        status_forcelist=AGAIN,
        backoff_factor=BACKOFF_S,
        backoff_jitter=BACKOFF_S,
        backoff_max=BACKOFF_MAX_S,
        retry_after_max=RETRY_AFTER_MAX_S,
        raise_on_status=False,
    )


def _path(pipeline: str) -> str:
    return f"/pipelines/{quote(pipeline, safe='')}"


def _is_frame(rows: Any) -> bool:
    return hasattr(rows, "itertuples")


def _records(rows: Any) -> Iterable[Mapping[str, Any]]:
    """The rows of a DataFrame; others as they are."""
    if isinstance(rows, str | bytes | Mapping):
        raise TypeError(f"expected a list of rows, got {type(rows).__name__}")
    if not _is_frame(rows):
        found: Iterable[Mapping[str, Any]] = rows
        return found
    columns = list(rows.columns)
    return (dict(zip(columns, values, strict=True)) for values in rows.itertuples(index=False, name=None))


def _prediction(answer: Mapping[str, Any], version: str) -> dict[str, Any]:
    return {
        "prediction_id": answer["prediction_id"],
        "score": answer["score"],
        "label": answer.get("label"),
        "model_version": version,
    }


def _cause(error: BaseException) -> str:
    """The innermost words, without the layers of libraries around them."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    text = str(reason if reason is not None else error)
    return text.rsplit(": ", 1)[-1] if isinstance(reason, Exception) else text
