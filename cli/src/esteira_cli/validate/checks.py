"""Runs each service's own check of its changed code, in a process of its own, and judges what it reports."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from esteira.exceptions import EsteiraError
from esteira_cli.validate.production import DatasetFiles, Production

Verdict = Literal["passed", "stopped", "noted", "skipped"]
Say = Callable[[str], None]
_SHOWN_ERROR_LINES = 15


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check showed."""

    check: Literal["replay", "recheck", "retrial"]
    verdict: Verdict
    """`noted`: it differs, and was meant to."""
    summary: str
    report: dict[str, Any] = {}
    """As the service wrote it."""
    error: str = ""
    """The end of what the process wrote, where it ended without a report."""
    seconds: float = 0.0


class Runner:
    """Runs modules of services with the code of the work tree.

    Args:
        root: the work tree; its sources come before what is installed, and after PYTHONPATH.
        work: where reports are written.
    """

    def __init__(self, root: Path | None, work: Path) -> None:
        self._work = work
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_sources(root))}

    def run(self, module: str, name: str, **options: object) -> tuple[dict[str, Any], str, float]:
        """Runs `python -m module` with options; gives its report, or the end of its output, and the seconds it took."""
        report = self._work / f"{name}.json"
        given = [f"--{option}={value}" for option, value in options.items() if value is not None]
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", module, *given, f"--report={report}"],
            cwd=self._work,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        seconds = round(time.perf_counter() - begun, 2)
        if done.returncode or not report.is_file():
            lines = [line for line in done.stdout.splitlines() if line.strip() and "leaked" not in line]
            return {}, "\n".join(lines[-_SHOWN_ERROR_LINES:]) or f"ended with {done.returncode}", seconds
        found: dict[str, Any] = msgspec.json.decode(report.read_bytes())
        return found, "", seconds


def _sources(root: Path | None) -> list[str]:
    first = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    own = [root / "shared" / "src", *sorted(root.glob("services/*/src"))] if root else []
    return [str(folder) for folder in [*first, *own] if folder.is_dir()]


def replay(runner: Runner, production: Production, tolerance: float) -> Finding:
    """Sends recorded requests through the predictor's code."""
    name = f"{production.pipeline}-{production.folder.name[:12]}-replay"
    report, error, seconds = runner.run(
        "predictor.replay", name, release=production.folder, sample=production.sample, tolerance=tolerance
    )
    if error:
        return Finding(
            check="replay", verdict="stopped", summary=_crash("predictor", error), error=error, seconds=seconds
        )
    kind = "recorded requests" if report["source"] == "recorded" else "example rows of the release, none being recorded"
    summary = (
        f"release {report['version']}: {report['rows_differing']} of {report['rows']} {kind} are answered otherwise"
    )
    if by_features := report.get("by_features"):  # code of before redaction tells none
        summary = f"{summary}, {by_features} of them sent as features, columns of their raw rows being withheld"
    if report["refused"]:
        summary = f"{summary}; it is refused: {report['refused']}"
    verdict: Verdict = "passed" if report["passed"] else "stopped"
    return Finding(check="replay", verdict=verdict, summary=summary, report=report, seconds=seconds)


def recheck(runner: Runner, pipeline: Path, dataset: DatasetFiles, out: Path, *, deliberate: bool) -> Finding:
    """Prepares the champion's dataset anew with etl's code.

    Args:
        deliberate: whether the pipeline's folder changed, so that other rows are what was wanted.
    """
    manifest = dataset.folder / "manifest.json"
    report, error, seconds = runner.run(
        "etl.recheck",
        f"{dataset.manifest.pipeline}-recheck",
        pipeline=pipeline.resolve(),
        manifest=manifest,
        parts=dataset.folder,
        raw=dataset.raw,
        out=out,
    )
    if error:
        return Finding(check="recheck", verdict="stopped", summary=_crash("etl", error), error=error, seconds=seconds)
    verdict: Verdict = "passed" if report["passed"] else "noted" if deliberate else "stopped"
    if report["refused"]:
        verdict = "stopped"
    if report["passed"] and len(report["unchecked"]) == report["parts"]:
        verdict = "skipped"
    return Finding(check="recheck", verdict=verdict, summary=_recheck_summary(report), report=report, seconds=seconds)


def _recheck_summary(report: dict[str, Any]) -> str:
    checked = report["parts"] - len(report["unchecked"]) - len(report["refused"])
    told = [f"{report['rows_differing']} rows differ in {checked} of {report['parts']} parts prepared anew"]
    for what, names in (("new", report["features_added"]), ("gone", report["features_removed"])):
        if names:
            told.append(f"features {what}: {', '.join(names)}")
    if report["refused"]:
        told.append(f"{len(report['refused'])} raw files are refused whole now")
    if report["unchecked"]:
        told.append(f"{len(report['unchecked'])} parts not prepared, {report['unchecked'][0]['reason']}")
    return "; ".join(told)


def retrial(
    runner: Runner, pipeline: Path, production: Production, dataset: DatasetFiles, data: Path, *, deliberate: bool
) -> Finding:
    """Trains with the trainer's code on the champion's dataset version, and compares.

    Args:
        data: the dataset to train on: the stored one, or what `recheck` prepared anew.
        deliberate: whether the pipeline's folder changed, so that labels or split may be others.
    """
    report, error, seconds = runner.run(
        "trainer.retrial",
        f"{production.pipeline}-retrial",
        pipeline=pipeline.resolve(),
        release=production.folder,
        stored=dataset.folder,
        data=data,
    )
    if error:
        return Finding(
            check="retrial", verdict="stopped", summary=_crash("trainer", error), error=error, seconds=seconds
        )
    reproduced = report["reproduction"]["passed"] or deliberate
    verdict: Verdict = "passed" if report["passed"] and reproduced else "stopped"
    return Finding(check="retrial", verdict=verdict, summary=_retrial_summary(report), report=report, seconds=seconds)


def _retrial_summary(report: dict[str, Any]) -> str:
    told = [f"{gate['name']}: {gate['detail']}" for gate in report["gates"] if not gate["passed"]]
    champion = [gate["detail"] for gate in report["gates"] if gate["name"] == "champion" and gate["passed"]]
    if not report["reproduction"]["passed"]:
        again = report["reproduction"]
        told.append(f"the champion's {again['metric']} is {again['measured']} now, recorded is {again['recorded']}")
    return "; ".join([*told, *champion]) or "nothing was compared"


def _crash(service: str, error: str) -> str:
    return f"the check of {service} ended without a report: {error.splitlines()[-1]}"


def choose_data(finding: Finding, dataset: DatasetFiles, out: Path) -> Path:
    """What to train on: the stored parts where etl makes the same rows, else what it made."""
    same = not finding.report or finding.report["passed"]
    return dataset.folder if same or not (out / "manifest.json").is_file() else out


def refused(check: Literal["replay", "recheck", "retrial"], error: EsteiraError) -> Finding:
    """Production's own files do not go together with this code."""
    return Finding(check=check, verdict="stopped", summary=str(error))
