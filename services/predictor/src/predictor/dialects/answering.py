"""What all dialects share: which pipeline is meant, the call of the data plane, the choice of output, errors."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import msgspec
from flask import Blueprint, Request, Response, request
from msgspec.structs import replace
from werkzeug.exceptions import HTTPException, UnsupportedMediaType

from esteira.exceptions import BadInput, EsteiraError, Problem, UnknownPipeline
from esteira.release import Release
from esteira.web import RETRY_AFTER_SECONDS, STATUS, json_response, read_body
from predictor.dialects.rows import Rows, request_columns
from predictor.inference import Answer, PredictAnswer, RowsQuestion, predict
from predictor.limits import MAX_REQUEST_BYTES
from predictor.prediction_log import PredictionLog
from predictor.problems import decode_rows, refuse
from predictor.serving import Serving, Servings

logger = logging.getLogger(__name__)

Output = Literal["score", "label", "all"]
S = TypeVar("S", bound=msgspec.Struct)
_PLACE = re.compile(r"rows(?:\[(?P<at>\d+)\](?:\.(?P<name>.*))?)?", re.DOTALL)


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may say besides its rows."""

    output: Output = "score"
    """What to give for each row: the score, the label, or an object of id, score and label."""


def default_serving(servings: Servings, name: str | None) -> Serving:
    """The release that serves where no pipeline is named.

    Raises:
        UnknownPipeline: there are several, or none; says what to set.
        Unavailable: there is one, and it cannot serve; or nobody knows yet.
    """
    if name is not None:
        return servings.get(name)
    known = sorted({serving.pointer.pipeline for serving in servings.all()} | servings.refusals().keys())
    if len(known) == 1:
        return servings.get(known[0])
    servings.require_looked()
    if not known:
        raise UnknownPipeline("no release of any pipeline was promoted yet")
    raise UnknownPipeline(f"several pipelines are served: set DEFAULT_PIPELINE to one of {', '.join(known)}")


def find_default(servings: Servings, name: str | None) -> Serving | None:
    """As `default_serving`; None where that raises."""
    try:
        return default_serving(servings, name)
    except EsteiraError:
        return None


def read_rows(release: Release, body: bytes, kind: type[S], read: Callable[[S], Rows]) -> tuple[S, Rows]:
    """Decodes a JSON body, and reads its rows.

    Args:
        release: has the columns.
        body: of the request.
        kind: the dialect's form of it.
        read: finds the rows in it.

    Raises:
        BadInput: it is not JSON, or not of that form; values that JSON does not have are named by their places.
    """
    asked = decode_rows(body, kind, lambda found: check_rows(release, read(found)))
    return asked, read(asked)


def check_rows(release: Release, rows: Rows) -> None:
    """Holds rows against the rules.

    Raises:
        BadInput: names every wrong value in the places of the dialect, up to `MAX_PROBLEMS`.
    """
    _refuse_misnamed(release, rows)
    with _placed(rows):
        RowsQuestion(rows.rows, rows.kind, "rows").check(release)


def predict_rows(serving: Serving, log: PredictionLog, rows: Rows) -> PredictAnswer:
    """Asks the data plane, and names what is wrong in the places of the dialect.

    Raises:
        BadInput: names every wrong value, up to `MAX_PROBLEMS`.
        PermanentError: see `predict`.
        Unavailable: see `predict`.
    """
    _refuse_misnamed(serving.runtime.release, rows)
    with _placed(rows):
        return predict(serving, log, RowsQuestion(rows.rows, rows.kind, "rows"))


def _refuse_misnamed(release: Release, rows: Rows) -> None:
    """Wrong names of columns, and with them what is wrong with the values of all others."""
    if not rows.misnamed:
        return
    named = rows.rows[0].keys() if rows.rows else ()
    columns = [column for column in request_columns(release) if column.name in named]
    features = [feature for feature in release.features if feature.name in named]
    kept = [one.name for one in (columns if rows.kind == "rows" else features)]
    others = [{name: row[name] for name in kept} for row in rows.rows]
    try:
        check_rows(replace(release, columns=columns, features=features), replace(rows, rows=others, misnamed=[]))
    except BadInput as error:
        refuse([*rows.misnamed, *error.problems], error.more)
    refuse(rows.misnamed)


@contextmanager
def _placed(rows: Rows) -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        raise BadInput([Problem(_place(rows, p.path), p.message) for p in error.problems], error.more) from error


def _place(rows: Rows, path: str) -> str:
    match = _PLACE.fullmatch(path)
    if match is None or match["at"] is None:
        return rows.path
    return rows.locate(int(match["at"]), match["name"])


def check_output(release: Release, output: Output, path: str) -> Output:
    """Gives the output back where the release has it.

    Raises:
        BadInput: labels are wanted of a regression.
    """
    if output == "label" and release.threshold is None:
        raise BadInput([Problem(path, f"{release.pipeline} is a regression and has no labels; take `score`")])
    return output


def choose_outputs(answer: PredictAnswer, output: Output) -> list[float] | list[bool | None] | list[Answer]:
    """What is wanted of each prediction."""
    if output == "score":
        return [prediction.score for prediction in answer.predictions]
    if output == "label":
        return [prediction.label for prediction in answer.predictions]
    return answer.predictions


def name_version(response: Response, answer: PredictAnswer) -> Response:
    """Puts the release that answered on the response."""
    response.headers["X-Model-Version"] = answer.model_version
    return response


def read_plain_body(received: Request) -> bytes:
    """Reads a body that must not be compressed, whatever its type.

    Raises:
        UnsupportedMediaType: it is compressed.
        RequestEntityTooLarge: it has more than `MAX_REQUEST_BYTES`.
    """
    if received.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("send the body uncompressed")
    return read_body(received, MAX_REQUEST_BYTES)


def answer_errors(blueprint: Blueprint, render: Callable[[int, str], Any]) -> None:
    """Gives every error of the blueprint the form of its dialect.

    Args:
        blueprint: has the routes of the dialect.
        render: makes the JSON of an error from its status and message.
    """

    def refuse(error: EsteiraError) -> Response:
        status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
        if status >= 500:
            logger.warning("request failed", extra={"path": request.path, "error": str(error)})
        response = json_response(render(status, str(error)), status)
        if status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if status in (429, 503):
            response.headers["Retry-After"] = RETRY_AFTER_SECONDS
        return response

    def refuse_http(error: HTTPException) -> Response:
        status = error.code or 500
        return json_response(render(status, error.description or error.name), status)

    def fail(error: Exception) -> Response:
        logger.error("request failed unexpectedly", extra={"path": request.path}, exc_info=error)
        return json_response(render(500, "something went wrong; the log says what"), 500)

    blueprint.register_error_handler(EsteiraError, refuse)
    blueprint.register_error_handler(HTTPException, refuse_http)
    blueprint.register_error_handler(Exception, fail)


def render_error(_: int, message: str) -> dict[str, str]:
    """The form that the Open Inference Protocol, TensorFlow Serving and KServe share."""
    return {"error": message}
