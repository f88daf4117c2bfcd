"""gRPC plumbing: registers a class's methods under Pub/Sub's wire names and maps errors to status codes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from esteira_cli.pubsub.exceptions import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PubSubError,
    Unsupported,
)

logger = logging.getLogger(__name__)

STATUS: Mapping[type[PubSubError], Any] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
}


@dataclass(frozen=True)
class Method:
    """One method: the protobuf class of its request, and what answers it."""

    request: Any
    answer: Callable[[Any, Any], Any]
    streaming: bool = False


def service_handler(service: str, methods: Mapping[str, Method], refused: tuple[str, ...]) -> Any:
    """Returns the gRPC handler of `google.pubsub.v1.<service>`; `refused` methods answer UNIMPLEMENTED."""
    handlers = {name: _handler(method) for name, method in methods.items()}
    handlers |= {name: _refusal(service, name) for name in refused}
    return grpc.method_handlers_generic_handler(f"google.pubsub.v1.{service}", handlers)


def _handler(method: Method) -> Any:
    if method.streaming:
        return grpc.stream_stream_rpc_method_handler(_stream(method.answer), method.request.FromString, _serialize)
    return grpc.unary_unary_rpc_method_handler(_unary(method.answer), method.request.FromString, _serialize)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _unary(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def call(request: Any, context: Any) -> Any:
        try:
            return answer(request, context)
        except PubSubError as error:
            return context.abort(STATUS[type(error)], str(error))

    return call


def _stream(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def call(requests: Any, context: Any) -> Any:
        try:
            yield from answer(requests, context)
        except PubSubError as error:
            context.abort(STATUS[type(error)], str(error))

    return call


def _refusal(service: str, name: str) -> Any:
    def refuse(_request: bytes, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{service}.{name}: this emulator does not have it")

    return grpc.unary_unary_rpc_method_handler(refuse)
