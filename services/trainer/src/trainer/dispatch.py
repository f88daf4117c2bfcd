"""Tells GitHub of approved releases, so that the delivery workflow takes them to production.

A release waits for it by its own row: `dispatched_at` is empty until GitHub has answered 204. A lost answer, or a
crash before the mark, sends the same dispatch again; the workflow finds the release promoted, or under way, already.
"""

import logging
from datetime import timedelta
from typing import Any, Final

import requests
from sqlalchemy import Engine, Row, func, or_, select, update
from sqlalchemy.orm import Session

from esteira.exceptions import EsteiraError
from esteira.tables import releases

logger = logging.getLogger(__name__)

GITHUB_API_URL: Final = "https://api.github.com"
API_VERSION: Final = "2022-11-28"
EVENT_TYPE: Final = "model-approved"
AT_ONCE: Final = 5
MAX_AGE: Final = timedelta(days=1)
"""Older releases are history: whoever configures GitHub later does not have them delivered again."""
TIMEOUT_S: Final = (5.0, 15.0)
FIRST_WAIT: Final = timedelta(seconds=5)
MAX_WAIT: Final = timedelta(minutes=10)
REFUSED_WAIT: Final = timedelta(minutes=10)
"""After an answer that will be the same until a person mends something."""
_MAX_TEXT = 300


class Dispatcher:
    """Sends a `repository_dispatch` for each approved release.

    Args:
        engine: of the database that has the releases.
        repository: `owner/name`.
        token: may send dispatches to it.
        api_url: where GitHub's API is.
    """

    def __init__(self, engine: Engine, repository: str, token: str, api_url: str = GITHUB_API_URL) -> None:
        self._engine = engine
        self._url = f"{api_url.rstrip('/')}/repos/{repository}/dispatches"
        self._headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": API_VERSION,
        }

    def send_waiting(self) -> int:
        """Sends what is due; gives how many GitHub took. What fails is logged and waits for another time."""
        sent = 0
        try:
            for _ in range(AT_ONCE):
                taken = self._send_next()
                if taken is None:
                    break
                sent += taken
        except EsteiraError as error:
            logger.warning("GitHub not told", extra={"error": str(error)})
        return sent

    def _send_next(self) -> bool | None:
        """One release in a transaction of its own, which holds its row; None where none waits."""
        with Session(self._engine) as session, session.begin():
            release = _next(session)
            if release is None:
                return None
            problem = self._send(release)
            if problem is None:
                _write(session, release, {"dispatched_at": func.clock_timestamp(), "dispatch_due_at": None})
                logger.info("GitHub told", extra={"pipeline": release.pipeline, "version": release.version})
            else:
                _postpone(session, release, *problem)
            return problem is None

    def _send(self, release: Row[Any]) -> tuple[str, bool] | None:
        """Why it was not taken, and whether a person must mend that; None where it was."""
        payload = {"pipeline": release.pipeline, "version": release.version, "sha256": release.sha256}
        body = {"event_type": EVENT_TYPE, "client_payload": payload}
        try:
            answer = requests.post(
                self._url, json=body, headers=self._headers, timeout=TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException as error:
            return f"{type(error).__name__}: {error}"[:_MAX_TEXT], False
        if answer.status_code == 204:
            return None
        passing = answer.status_code >= 500 or answer.status_code in (408, 429)
        return f"GitHub answered {answer.status_code}: {answer.text[:_MAX_TEXT]}", not passing


def _next(session: Session) -> Any | None:
    c = releases.c
    due = or_(c.dispatch_due_at.is_(None), c.dispatch_due_at <= func.clock_timestamp())
    fresh = c.created_at > func.clock_timestamp() - MAX_AGE
    query = select(c.pipeline, c.version, c.sha256, c.dispatch_attempts).where(
        c.dispatched_at.is_(None), c.approved, fresh, due
    )
    return session.execute(query.order_by(c.created_at).limit(1).with_for_update(skip_locked=True)).first()


def _postpone(session: Session, release: Row[Any], error: str, refused: bool) -> None:
    attempts = release.dispatch_attempts
    wait = REFUSED_WAIT if refused else min(FIRST_WAIT * 2 ** min(attempts, 20), MAX_WAIT)
    level = logging.ERROR if refused and attempts == 0 else logging.WARNING
    facts = {"pipeline": release.pipeline, "version": release.version, "attempts": attempts + 1, "error": error}
    logger.log(level, "GitHub not told of a release", extra=facts)
    _write(session, release, {"dispatch_attempts": attempts + 1, "dispatch_due_at": func.clock_timestamp() + wait})


def _write(session: Session, release: Row[Any], values: dict[str, Any]) -> None:
    c = releases.c
    this = (c.pipeline == release.pipeline) & (c.version == release.version)
    session.execute(update(releases).where(this).values(values))
