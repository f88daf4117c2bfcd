"""What can come of asking a predictor.

    PredictorError
    ├── PredictorRefused          it does not take the request; asking again cannot help; carries all problems
    │   ├── PipelineNotServed     404: no such pipeline, or none of its releases is promoted
    │   ├── AccessRefused         401, 403: no key or token, or one that does not let in
    │   └── RequestTooLarge       413: more bytes than it reads at once
    └── PredictorUnavailable      no answer, or one that says to come back; asking again later may help

`PredictorRefused` is a `PermanentError`, `PredictorUnavailable` a `TransientError`.
"""

import re
from collections.abc import Sequence

import msgspec
import requests

from esteira.exceptions import EsteiraError, PermanentError, Problem, TransientError

_ROW = re.compile(r"(?:rows|features|outcomes)\[(\d+)\]\.?(.*)", re.DOTALL)
_SHOWN = 20


class PredictorError(EsteiraError):
    """The predictor gave no prediction."""


class PredictorRefused(PredictorError, PermanentError):
    """The predictor does not take the request."""

    def __init__(
        self, message: str | None = None, problems: Sequence[Problem] = (), status: int | None = None, code: str = ""
    ) -> None:
        super().__init__(message)
        self.problems = list(problems)
        """What is wrong; a path such as `rows[3].price` counts from 0 in the rows that the client was given."""
        self.status = status
        """Of the answer; None where the client itself saw that a row cannot be sent."""
        self.code = code
        """The service's name for the error, such as `bad_input`."""

    def by_row(self) -> dict[int, list[str]]:
        """What is wrong with each row that a problem names."""
        found: dict[int, list[str]] = {}
        for problem in self.problems:
            if match := _ROW.fullmatch(problem.path):
                reason = f"{match[2]}: {problem.message}" if match[2] else problem.message
                found.setdefault(int(match[1]), []).append(reason)
        return found


class PipelineNotServed(PredictorRefused):
    """The predictor serves no pipeline of that name."""


class AccessRefused(PredictorRefused):
    """The predictor does not let the caller in."""


class RequestTooLarge(PredictorRefused):
    """The request has more bytes than the predictor reads at once."""


class PredictorUnavailable(PredictorError, TransientError):
    """The predictor does not answer."""


_KINDS = {401: AccessRefused, 403: AccessRefused, 404: PipelineNotServed, 413: RequestTooLarge}
_NO_PREDICTION = "permanent_error"
"""The code of a 500 that blames the request: a row for which the model has no finite score."""


class _Said(msgspec.Struct):
    code: str = ""
    message: str = ""
    problems: list[Problem] = []
    more: int = 0


class _Answer(msgspec.Struct):
    error: _Said


def error_of(url: str, answer: requests.Response, offset: int = 0) -> PredictorError:
    """The error that an answer means.

    Args:
        url: where the predictor is.
        answer: any but 2xx.
        offset: how many rows the client sent in earlier requests; paths are moved by it.
    """
    said = _said(answer)
    status = answer.status_code
    if status < 400 or status == 429 or (status >= 500 and said.code != _NO_PREDICTION):
        request = answer.headers.get("X-Request-Id")
        return PredictorUnavailable(
            f"the predictor at {url} answered {status}: {said.message}" + (f" (request {request})" if request else "")
        )
    problems = [Problem(_moved(problem.path, offset), problem.message) for problem in said.problems]
    told = said.message if not problems else tell(problems, said.more)
    message = f"the predictor at {url} answered {status}: {told}"
    return _KINDS.get(status, PredictorRefused)(message, problems, status, said.code)


def tell(problems: Sequence[Problem], more: int = 0) -> str:
    """The problems in one line, the first ones if they are many; `more` is how many the service did not even name."""
    more += max(0, len(problems) - _SHOWN)
    return "; ".join(map(str, problems[:_SHOWN])) + (f"; and {more} more" if more else "")


def _said(answer: requests.Response) -> _Said:
    try:
        return msgspec.json.decode(answer.content, type=_Answer).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Said(message=answer.text[:200].strip() or answer.reason or "nothing")


def _moved(path: str, offset: int) -> str:
    return re.sub(r"\[(\d+)\]", lambda match: f"[{int(match[1]) + offset}]", path, count=1) if offset else path
