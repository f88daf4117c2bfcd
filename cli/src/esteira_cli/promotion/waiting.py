"""Waits for what a canary or shadow shows, and acts on it."""

import time
from collections.abc import Callable
from typing import Any, Literal

from esteira.exceptions import Conflict, PermanentError, TransientError
from esteira_cli.promotion.ledger import Entry, Ledger

Outcome = Literal["promoted", "rolled back"]
Say = Callable[[str], None]
MAX_REASON = 500


class Impatient(TransientError):
    """It did not happen in time; nothing was undone."""


def see_trial_through(
    ledger: Ledger, version: str, patience: float, say: Say, every: float = 2.0
) -> tuple[Outcome, str]:
    """Waits until the canary or shadow of `version` has ended, by this command, by the monitor or by a person.

    Returns:
        How it ended, and why.

    Raises:
        Impatient: after `patience` seconds there was no verdict; it runs on.
    """
    deadline, last = time.monotonic() + patience, ""
    while True:
        try:
            newest = ledger.rows()[0]
            if ended := _ended(newest, version):
                return ended
            report = ledger.canary()
            _act(ledger, newest, report)
            told = _progress(report)
        except Conflict:
            told = "somebody was quicker; looking again"
        except TransientError as error:
            told = str(error)
        if told != last:
            say(told)
            last = told
        if time.monotonic() > deadline:
            raise Impatient(f"{version} has no verdict after {patience / 60:.0f} minutes; it runs on")
        time.sleep(every)


def _ended(newest: Entry, version: str) -> tuple[Outcome, str] | None:
    if newest.share < 1 and newest.release_version == version:
        return None
    promoted = newest.share == 1 and newest.release_version == version
    return ("promoted" if promoted else "rolled back"), newest.reason


def _act(ledger: Ledger, newest: Entry, report: dict[str, Any]) -> None:
    """On a verdict about the row that was seen, and on no other."""
    if report["generation"] != newest.generation:
        return
    reason = f"{newest.mode} of {newest.release_version}: {'; '.join(report['reasons'])}"[:MAX_REASON]
    if report["verdict"] == "promote":
        ledger.promote(newest.release_version, 1.0, reason, newest.generation)
    elif report["verdict"] == "rollback":
        ledger.rollback(reason, newest.generation)


def _progress(report: dict[str, Any]) -> str:
    return f"{report['verdict'] or 'no verdict'}: {'; '.join(report['reasons'])}"


def see_served(ledger: Ledger, version: str, patience: float, every: float = 0.5) -> None:
    """Waits until the predictor serves `version` as champion.

    Raises:
        PermanentError: it is pinned to another release.
        Impatient: it does not, after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            served = ledger.served()
        except TransientError as error:
            serving = str(error)
        else:
            serving = served.version
            if serving == version:
                return
            if served.is_pinned:
                raise PermanentError(f"{version} was promoted, but the predictor serves {serving}, {served.reason}")
        if time.monotonic() > deadline:
            raise Impatient(f"{version} was promoted, but the predictor serves {serving} after {patience:.0f} s")
        time.sleep(every)
