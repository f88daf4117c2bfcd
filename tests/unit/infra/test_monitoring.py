"""infra/monitoring, held against what the services log and what Google Cloud documents."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pages import ROOT, read

FOLDER = ROOT / "infra" / "monitoring"
METRICS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "metrics").glob("*.json"))}
ALERTS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "alerts").glob("*.json"))}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
SERVICES = ("etl", "trainer", "predictor", "monitor")
WANTED = {
    "error-rate",
    "latency",
    "dead-letters",
    "drift",
    "performance",
    "stale-data",
    "no-predictions",
    "failed-training",
    "given-up",
}
USER = "logging.googleapis.com/user/"
GOOGLES = {
    # https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-run
    "run.googleapis.com/request_count",
    "run.googleapis.com/request_latencies",
    "run.googleapis.com/container/instance_count",
    # https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub
    "pubsub.googleapis.com/subscription/num_undelivered_messages",
    # https://cloud.google.com/monitoring/api/metrics_gcp_c#gcp-cloudsql
    "cloudsql.googleapis.com/database/postgresql/num_backends",
}
LONGEST_ABSENCE_S = 84_600
"""https://cloud.google.com/monitoring/alerts/metric-absence: 23.5 hours."""
WRITTEN_BY_THE_FORMATTER = {"severity", "message", "logger", "time", "service"}


Line = tuple[str, ast.Call, ast.Module]
"""A constant message, the call that logs it, and the module of the call."""


@cache
def lines_of(member: str) -> list[Line]:
    """What a service, or the shared package, logs."""
    found: list[Line] = []
    folder = ROOT / "shared" if member == "shared" else ROOT / "services" / member
    for path in sorted((folder / "src").rglob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and is_logging(node.func):
                found += [(message, node, module) for message in messages(node)]
    return found


def is_logging(node: ast.expr) -> bool:
    levels = ("debug", "info", "warning", "error", "exception", "critical", "log")
    return (
        isinstance(node, ast.Attribute)
        and node.attr in levels
        and isinstance(node.value, ast.Name)
        and node.value.id == "logger"
    )


def messages(node: ast.Call) -> list[str]:
    return [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]


def facts(call: ast.Call, module: ast.Module) -> set[str]:
    """The names that stand in `extra` each time: what a branch or an unknown mapping may bring does not count."""
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    return keys(extra, call.lineno, module)


def keys(node: ast.expr | None, line: int, module: ast.Module) -> set[str]:
    match node:
        case ast.Dict():
            named = {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            unpacked = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
            return named.union(*(keys(value, line, module) for value in unpacked))
        case ast.BinOp(op=ast.BitOr()):
            return keys(node.left, line, module) | keys(node.right, line, module)
        case ast.IfExp():
            return keys(node.body, line, module) & keys(node.orelse, line, module)
        case ast.Name():
            return keys(assigned(node.id, line, module), line, module)
        case ast.Call(func=ast.Name(id=name)):
            returns = [n for f in functions(module) if f.name == name for n in ast.walk(f) if isinstance(n, ast.Return)]
            return set.intersection(*(keys(n.value, n.lineno, module) for n in returns)) if returns else set()
    return set()


def functions(module: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]


def assigned(name: str, line: int, module: ast.Module) -> ast.expr | None:
    """What the name was last given above the line, in the function that the line is in."""
    around = [f for f in functions(module) if f.lineno <= line <= (f.end_lineno or line)]
    given = [
        node
        for function in around[-1:]
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and node.lineno < line
        if any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]
    return max(given, key=lambda node: node.lineno).value if given else None


def services_of(text: str) -> list[str]:
    """The members whose lines a filter takes; one that names no service takes them all."""
    named = re.findall(r'(?:service_name|job_name)="esteira-(\w+)"', text)
    return sorted({"trainer" if name == "training" else name for name in named} or SERVICES)


def filters_of(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("filter", "denominatorFilter"):
                yield value
            else:
                yield from filters_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from filters_of(value)


def metric_types(node: Any) -> set[str]:
    return {found for text in filters_of(node) for found in re.findall(r'metric\.type = "([^"]+)"', text)}


def written(metric: dict[str, Any]) -> list[Line]:
    """The places in the source whose lines a metric counts."""
    wanted = set(re.findall(r'jsonPayload\.message="([^"]+)"', metric["filter"]))
    members = (*services_of(metric["filter"]), "shared")
    return [line for member in members for line in lines_of(member) if line[0] in wanted]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_counts_lines_that_its_services_write(name: str) -> None:
    wanted = set(re.findall(r'jsonPayload\.message="([^"]+)"', METRICS[name]["filter"]))
    assert wanted
    assert {message for message, _, _ in written(METRICS[name])} == wanted


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_takes_its_labels_from_facts_that_are_logged(name: str) -> None:
    labels = {label["key"] for label in METRICS[name]["metricDescriptor"].get("labels", [])}
    extractors = METRICS[name].get("labelExtractors", {})
    assert labels == set(extractors)
    for extractor in extractors.values():
        (field,) = re.fullmatch(r"EXTRACT\(jsonPayload\.(\w+)\)", extractor).groups()  # type: ignore[union-attr]
        for _, call, module in written(METRICS[name]):
            assert field in facts(call, module) | WRITTEN_BY_THE_FORMATTER


def test_a_fact_that_only_a_branch_logs_is_no_label() -> None:
    module = ast.parse(
        "def log(x, more):\n"
        "    head = {'a': 1, **more}\n"
        "    part = {'b': 1} if x else {}\n"
        "    logger.info('m', extra={**head, **part, 'c': made(x)} | made(x))\n"
        "def made(x):\n"
        "    return {'d': 'e'}\n"
    )
    (call,) = [node for node in ast.walk(module) if isinstance(node, ast.Call) and is_logging(node.func)]
    assert facts(call, module) == {"a", "c", "d"}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_a_counter_that_is_looked_at(name: str) -> None:
    descriptor = METRICS[name]["metricDescriptor"]
    assert (descriptor["metricKind"], descriptor["valueType"]) == ("DELTA", "INT64")
    assert USER + name in metric_types(ALERTS) | metric_types(DASHBOARD)


def test_what_is_to_be_told_of_is_told_of() -> None:
    assert set(ALERTS) >= WANTED


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_at_metrics_that_there_are(name: str) -> None:
    found = metric_types(ALERTS[name])
    assert found
    assert found <= GOOGLES | {USER + metric for metric in METRICS}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_groups_by_and_filters_labels_that_its_metric_has(name: str) -> None:
    for text in filters_of(ALERTS[name]):
        metric = re.search(rf'"{USER}([^"]+)"', text)
        if metric:
            used = set(re.findall(r"metric\.label\.(\w+)", text))
            assert used <= set(METRICS[metric[1]].get("labelExtractors", {}))


def test_the_status_that_counts_as_fresh_data_is_one_of_etls() -> None:
    (status,) = re.findall(r'metric\.label\.status = "(\w+)"', json.dumps(ALERTS["stale-data"]).replace("\\", ""))
    source = "\n".join(path.read_text() for path in Path(ROOT / "services/etl/src").rglob("*.py"))
    assert f'status="{status}"' in source


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_and_what_to_do(name: str) -> None:
    assert ALERTS[name]["userLabels"]["alert"] == name
    assert len(ALERTS[name]["documentation"]["content"]) > 80


@pytest.mark.parametrize("name", ALERTS)
def test_absences_are_no_longer_than_can_be_watched(name: str) -> None:
    for condition in ALERTS[name]["conditions"]:
        if "conditionAbsent" in condition:
            assert int(condition["conditionAbsent"]["duration"].removesuffix("s")) <= LONGEST_ABSENCE_S


@pytest.mark.parametrize("name", ALERTS)
def test_thresholds_are_documented_as_they_are(name: str) -> None:
    page = read("docs/google-cloud.md")
    row = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), "")
    for condition in ALERTS[name]["conditions"]:
        assert condition["displayName"] in row


@pytest.mark.parametrize("name", ALERTS)
def test_conditions_are_called_what_they_check(name: str) -> None:
    for condition in ALERTS[name]["conditions"]:
        found = re.search(r"(?:over|for) ([\d.]+) (%|ms|hours|requests)", condition["displayName"])
        if found is None:
            assert condition["conditionThreshold"]["thresholdValue"] == 0
        elif found[2] == "hours":
            assert condition["conditionAbsent"]["duration"] == f"{float(found[1]) * 3600:.0f}s"
        else:
            share = 100 if found[2] == "%" else 1
            assert condition["conditionThreshold"]["thresholdValue"] * share == float(found[1])


def test_the_dashboard_shows_metrics_that_there_are_side_by_side() -> None:
    assert metric_types(DASHBOARD) <= GOOGLES | {USER + metric for metric in METRICS}
    tiles = DASHBOARD["mosaicLayout"]["tiles"]
    assert all(tile["xPos"] + tile["width"] <= DASHBOARD["mosaicLayout"]["columns"] for tile in tiles)
    assert len({(tile["xPos"], tile["yPos"]) for tile in tiles}) == len(tiles)
