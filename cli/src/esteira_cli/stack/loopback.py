"""Small HTTP requests to the stack's own addresses, past any proxy of the environment."""

import urllib.error
import urllib.request
from typing import Any

import msgspec

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, timeout: float = 2.0) -> bool:
    """Tells whether a GET of `url` is answered with 200."""
    try:
        with _OPENER.open(url, timeout=timeout) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def get_json(url: str, timeout: float = 3.0) -> Any:
    """Fetches a JSON document; None where there is no usable answer."""
    try:
        with _OPENER.open(url, timeout=timeout) as response:
            return msgspec.json.decode(response.read())
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def post(url: str, body: bytes, headers: dict[str, str], timeout: float) -> int:
    """Posts `body` and returns the status of the answer, whatever it is.

    Raises:
        OSError: there was no answer.
    """
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310  our own address
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
