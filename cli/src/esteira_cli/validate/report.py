"""The report of a validation: Markdown for people, JSON for machines."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from esteira_cli.validate.checks import Finding
from esteira_cli.validate.results import PipelineResult, Validation

MARKER = "<!-- esteira validate -->"
"""By which a workflow finds the comment that it wrote before."""
SHOWN = 20
MAX_BYTES = 60_000
"""GitHub takes comments of up to 65,536 characters."""
TITLES = {
    "replay": "Recorded requests, answered by this code",
    "recheck": "The champion's raw files, prepared by this code",
    "retrial": "A model trained by this code, against the champion",
}
_MARKS = {"passed": "✅ passed", "stopped": "❌ stopped", "noted": "📝 noted", "skipped": "➖ skipped"}
_MAX_CELL = 120
_MARKUP = re.compile(r"[\\`*_\[\]<>|~#!]")
_PIPE = "\\|"


def to_json(validation: Validation) -> bytes:
    """All figures."""
    content = {"passed": validation.passed, **msgspec.to_builtins(validation)}
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def to_markdown(validation: Validation, plots: dict[str, str]) -> str:
    """The verdict, then what each check showed.

    Args:
        validation: what was found.
        plots: the file name of each pipeline's plot.
    """
    verdict = "✅ passes" if validation.passed else "❌ is stopped"
    lines = [
        MARKER,
        f"## Validation against production: {verdict}",
        "",
        f"Checked {_plain(validation.head)}; compared with {_plain(validation.base)}.",
        "",
        *_table(["pipeline", "production", "check", "verdict", "what it showed", "s"], _overview(validation.results)),
    ]
    for result in validation.results:
        lines += _section(result, plots.get(result.pipeline))
    text = "\n".join(lines) + "\n"
    return text if len(text) <= MAX_BYTES else f"{text[:MAX_BYTES]}\n\n… cut off here; all of it is in report.json.\n"


def _overview(results: Sequence[PipelineResult]) -> Iterator[list[Any]]:
    for result in results:
        version = _plain(result.version or "none")
        if not result.findings:
            yield [result.pipeline, version, "", _MARKS["passed"], _plain("; ".join(result.notes)), ""]
        for finding in result.findings:
            mark = _MARKS[finding.verdict]
            yield [result.pipeline, version, finding.check, mark, _plain(finding.summary), f"{finding.seconds:.1f}"]


def _section(result: PipelineResult, plot: str | None) -> list[str]:
    lines = ["", f"### {result.pipeline}", ""]
    lines += [f"- {_plain(note)}" for note in result.notes]
    for finding in result.findings:
        lines += ["", f"#### {TITLES[finding.check]}: {_MARKS[finding.verdict]}", "", _plain(finding.summary, 2000), ""]
        lines += _DETAILS[finding.check](finding.report) if finding.report else _error(finding)
    if plot:
        lines += ["", f"Plot: `{plot}`, beside this report."]
    return lines


def _error(finding: Finding) -> list[str]:
    return ["```text", finding.error.replace("```", "'''"), "```"] if finding.error else []


def _replay(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['rows']} rows; scores may differ by {report['tolerance']:g}."]
    differences = report["differences"]
    if differences:
        rows = [
            [_plain(d["id"]), _plain(d["path"]), _value(d["expected"]), _value(d["got"])] for d in differences[:SHOWN]
        ]
        lines += ["", *_table(["prediction", "path", "expected", "got"], rows)]
        lines += _more(len(differences) - SHOWN, "differences")
    return lines


def _recheck(report: dict[str, Any]) -> list[str]:
    rows = [
        [
            *(_plain(found[name]) for name in ("object", "column", "rows")),
            *(_plain(one[name]) for name in ("line", "entity")),
            *(_value(one[name]) for name in ("expected", "got")),
        ]
        for found in report["differences"]
        for one in found["examples"][:3]
    ]
    lines: list[str] = []
    if rows:
        names = ["raw file", "column", "rows that differ", "line", "entity", "expected", "got"]
        lines += [*_table(names, rows[:SHOWN]), *_more(len(rows) - SHOWN, "examples")]
    lines += [f"- {_plain(one['object'])}: {_plain(one['reason'])}" for one in report["refused"][:SHOWN]]
    return lines


def _retrial(report: dict[str, Any]) -> list[str]:
    gates = [
        [
            _plain(gate["name"]),
            "passed" if gate["passed"] else "**failed**",
            *(_figure(gate[name]) for name in ("value", "threshold")),
            _plain(gate["detail"]),
        ]
        for gate in report["gates"]
    ]
    lines = _table(["gate", "", "figure", "threshold", "detail"], gates)
    again = report["reproduction"]
    told = f"{again['metric']} of the champion on its own held-out rows: {_figure(again['measured'])}"
    lines += ["", f"{told}, recorded {_figure(again['recorded'])}."]
    found = differences(report)
    if found:
        rows = [
            [_plain(name), f"{value:+.5f}", f"[{low:+.5f}, {high:+.5f}]", count]
            for name, value, low, high, count in found
        ]
        lines += ["", *_table(["rows", "challenger minus champion", "interval", "held-out rows"], rows), ""]
        lines += _chart(found[:SHOWN])
    return lines


def differences(report: dict[str, Any]) -> list[tuple[str, float, float, float, int]]:
    """Name, difference, both ends of its interval and rows: of all rows, then of each slice."""
    metrics = report["metrics"]
    if "difference" not in metrics:
        return []
    found = [("all", metrics["difference"], metrics["difference_low"], metrics["difference_high"], report["rows"])]
    for one in report["slices"]:
        measured = one["difference"]
        name = f"{one['feature']}={one['value']}"
        found.append((name, measured["value"], measured["low"], measured["high"], measured["rows"]))
    return found


def _chart(found: list[tuple[str, float, float, float, int]]) -> list[str]:
    """The intervals as GitHub draws them in summaries and comments."""
    names = ", ".join('"' + " ".join(name.replace('"', "'").split()) + '"' for name, *_ in found)
    series = [", ".join(f"{one[position]:.6f}" for one in found) for position in (1, 2, 3)]
    return [
        "```mermaid",
        "xychart-beta",
        '  title "Challenger minus champion, with its interval"',
        f"  x-axis [{names}]",
        '  y-axis "difference"',
        f"  bar [{series[0]}]",
        f"  line [{series[1]}]",
        f"  line [{series[2]}]",
        "```",
    ]


_DETAILS = {"replay": _replay, "recheck": _recheck, "retrial": _retrial}


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]] | Iterator[list[Any]]) -> list[str]:
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def _plain(value: Any, most: int = _MAX_CELL * 3) -> str:
    """Text that may quote production's rows: it stands as it is, and is no link, picture, mention or markup."""
    text = " ".join(str(value).split())
    text = text if len(text) <= most else f"{text[:most]}…"
    return _MARKUP.sub(r"\\\g<0>", text).replace("@", "@\u200b").replace("://", ":\u200b//")


def _value(value: Any) -> str:
    """A value as JSON has it, with every digit."""
    text = " ".join(msgspec.json.encode(value).decode().split())
    text = text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}…"
    return f"`{text.replace('`', chr(39)).replace('|', _PIPE)}`"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _more(count: int, what: str) -> list[str]:
    return ["", f"… and {count} more {what}; all that were kept are in report.json."] if count > 0 else []
