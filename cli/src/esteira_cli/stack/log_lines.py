"""Log lines as people read them: services write JSON, everything else writes text."""

from collections.abc import Iterable

import msgspec

TRACE_LINES = 4
"""Of a stack trace, the last lines: where it happened and what."""


class _Line(msgspec.Struct):
    message: str
    severity: str = "INFO"
    stack_trace: str = ""


def readable(lines: Iterable[str]) -> list[str]:
    """Renders JSON lines as severity, message and the end of the stack trace; leaves other lines as they are."""
    return [shown for line in lines for shown in _readable(line)]


def _readable(line: str) -> list[str]:
    try:
        parsed = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError:
        return [line]
    return [f"{parsed.severity} {parsed.message}", *parsed.stack_trace.strip().splitlines()[-TRACE_LINES:]]
