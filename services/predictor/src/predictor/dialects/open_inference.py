"""The Open Inference Protocol, version 2, over REST: what Triton, KServe and MLServer speak.

The specification is github.com/open-inference/open-inference-protocol; the binary extension is not served.
"""

from importlib.metadata import version
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from esteira.exceptions import NotFound, Problem
from esteira.release import Release
from esteira.web import json_response, read_json_bytes
from predictor.dialects.answering import answer_errors, name_version, predict_rows, read_rows, render_error
from predictor.dialects.tensors import (
    InputTensor,
    Scalar,
    Tensor,
    describe_inputs,
    describe_outputs,
    make_outputs,
    read_tensors,
)
from predictor.limits import MAX_REQUEST_BYTES
from predictor.prediction_log import PredictionLog
from predictor.problems import refuse
from predictor.serving import Serving, Servings

PLATFORM = "esteira"


class RequestedOutput(msgspec.Struct, frozen=True):
    """A tensor that the client wants."""

    name: str
    parameters: dict[str, Scalar] = {}


class InferenceRequest(msgspec.Struct, frozen=True):
    """The JSON of a request; what it does not know, such as parameters of other servers, it passes over."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Scalar] | None = None
    outputs: list[RequestedOutput] = []


class InferenceResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Scalar] | None = None
    outputs: list[Tensor]


def make_open_inference(servings: Servings, log: PredictionLog) -> Blueprint:
    """What clients of the protocol call."""
    blueprint = Blueprint("open_inference", __name__)

    @blueprint.get("/v2")
    def get_server() -> Response:
        return json_response({"name": "esteira", "version": version("esteira-predictor"), "extensions": []})

    @blueprint.get("/v2/health/live")
    def get_live() -> Response:
        return json_response({"live": True})

    @blueprint.get("/v2/health/ready")
    def get_ready() -> Response:
        servings.require_ready()
        return json_response({"live": True, "ready": True})  # the specification says the first, servers the second

    _add_models(blueprint, servings, log)
    answer_errors(blueprint, render_error)
    return blueprint


def _add_models(blueprint: Blueprint, servings: Servings, log: PredictionLog) -> None:
    """The routes of a model, each also with its version."""

    def describe(name: str, version: str | None = None) -> Response:
        return json_response(_describe(_find(servings, name, version)))

    def ready(name: str, version: str | None = None) -> Response:
        _find(servings, name, version)
        return json_response({"name": name, "ready": True})

    def infer(name: str, version: str | None = None) -> Response:
        body = read_json_bytes(request, MAX_REQUEST_BYTES)
        return _infer(_find(servings, name, version), log, body)

    for base in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        blueprint.add_url_rule(base, "describe", describe)
        blueprint.add_url_rule(f"{base}/ready", "ready", ready)
        blueprint.add_url_rule(f"{base}/infer", "infer", infer, methods=["POST"])


def _find(servings: Servings, name: str, version: str | None) -> Serving:
    """The release in service; a client that names its version is never answered by a challenger.

    Raises:
        UnknownPipeline: there is no such pipeline.
        NotFound: another version serves.
        Unavailable: the pipeline cannot serve.
    """
    serving = servings.get(name)
    if version is None:
        return serving
    if version != serving.pointer.version:
        raise NotFound(f"version {version} of {name} is not in service; {serving.pointer.version} is")
    return msgspec.structs.replace(serving, challenger=None)


def _describe(serving: Serving) -> dict[str, Any]:
    release = serving.runtime.release
    return {
        "name": serving.pointer.pipeline,
        "versions": [serving.pointer.version],
        "platform": PLATFORM,
        "inputs": describe_inputs(release),
        "outputs": describe_outputs(release),
    }


def _infer(serving: Serving, log: PredictionLog, body: bytes) -> Response:
    release = serving.runtime.release
    asked, rows = read_rows(release, body, InferenceRequest, lambda found: read_tensors(release, found.inputs))
    wanted = _choose_outputs(release, asked.outputs)
    answer = predict_rows(serving, log, rows)
    response = InferenceResponse(
        model_name=answer.pipeline,
        model_version=answer.model_version,
        id=asked.id,
        parameters=asked.parameters,
        outputs=make_outputs(answer, wanted),
    )
    return name_version(json_response(response), answer)


def _choose_outputs(release: Release, wanted: list[RequestedOutput]) -> list[dict[str, Any]]:
    """All outputs where none is asked for by name."""
    known = {output["name"]: output for output in describe_outputs(release)}
    problems = [
        Problem(f"outputs[{at}].name", f"there is no output {output.name!r}; there are {', '.join(known)}")
        for at, output in enumerate(wanted)
        if output.name not in known
    ]
    refuse(problems)
    return [known[output.name] for output in wanted] or list(known.values())
