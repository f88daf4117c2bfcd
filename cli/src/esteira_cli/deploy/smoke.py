"""What a revision must answer before traffic goes to it, and after."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import requests

from esteira.exceptions import EsteiraError
from esteira_cli.production import MEND_KEY

TIMEOUT_S: Final = (5.0, 60.0)
STARTS_WITHIN_S: Final = 90.0
"""How long a revision may answer 429 or 5xx, for it may have no instance yet."""
SERVES_WITHIN_S: Final = 120.0
IN_A_ROW: Final = 5
"""As many answers of the new revision, one after another, count as proof that it serves."""
SAME_SCORE: Final = 1e-9
"""By how much a score may differ from the one of training, which may have run on another kind of processor."""

MEND_ACCESS: Final = "let the caller in with infra/bootstrap.sh --after-deploy, then deploy again"


class SmokeTestFailed(EsteiraError):
    """A revision does not answer as it must."""


class Site:
    """A service, or one of its revisions, at an address.

    Args:
        url: of the revision's tag, or of the service.
        headers: prove to Cloud Run, and to the service, who asks.
        takes_keys: whether the service is one that an API key opens.
        pause: how many seconds to wait between two tries.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, takes_keys: bool = False, pause: float = 2.0) -> None:
        self._url = url.rstrip("/")
        self._headers = headers
        self._takes_keys = takes_keys
        self._pause = pause

    def get(self, path: str) -> Any:
        """Asks; what is no JSON is given as text."""
        return self._ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """Sends JSON and gives the answer."""
        return self._ask("POST", path, body)

    def revision(self) -> str:
        """The revision that answers just now."""
        found = self.get("/health/live")
        return str(found.get("revision", "")) if isinstance(found, dict) else ""

    def pause(self) -> None:
        """Waits a little."""
        time.sleep(self._pause)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Repeats what a revision without an instance refuses.

        Raises:
            SmokeTestFailed: there is no answer, or it is an error.
        """
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                answer = requests.request(
                    method, self._url + path, json=body, headers=self._headers, timeout=TIMEOUT_S, allow_redirects=False
                )
            except requests.RequestException as error:
                said, passing = str(error), True
            else:
                if answer.status_code == 200:
                    return _body(answer)
                said, passing = _refusal(answer, self._takes_keys), answer.status_code in (429, 500, 502, 503, 504)
            if not passing or time.monotonic() > until:
                raise SmokeTestFailed(f"{method} {self._url}{path}: {said}")
            self.pause()


Check = Callable[[Site, Sequence[str]], None]


def check_ready(site: Site, _: Sequence[str]) -> None:
    """It can work: what it needs answers."""
    site.get("/health/ready")


def check_ingestions(site: Site, pipelines: Sequence[str]) -> None:
    """It knows each pipeline of the work tree, and reads its tables."""
    for pipeline in pipelines:
        site.get(f"/pipelines/{pipeline}/ingestions")


def check_history(site: Site, pipelines: Sequence[str]) -> None:
    """It knows each pipeline of the work tree, and reads the ledger."""
    for pipeline in pipelines:
        site.get(f"/pipelines/{pipeline}/promotions")


def check_dashboard(site: Site, _: Sequence[str]) -> None:
    """It draws its dashboard, for which it reads all that it ever stored."""
    site.get("/")


def check_examples(site: Site, _: Sequence[str]) -> None:
    """Each release scores its example rows as it did when it was trained.

    Raises:
        SmokeTestFailed: a release is refused, or a score is another one; says which.
    """
    for entry in site.get("/pipelines"):
        pipeline = entry["pipeline"]
        if "refused" in entry:
            raise SmokeTestFailed(f"the release of {pipeline} is refused: {entry['refused']}")
        example = site.get(f"/pipelines/{pipeline}")["example"]
        if not example["rows"]:  # none can be shown of a release that hides columns from its log
            continue
        answer = site.post(f"/pipelines/{pipeline}/predict", {"rows": example["rows"]})
        scores = [prediction["score"] for prediction in answer["predictions"]]
        for row, (score, expected) in enumerate(zip(scores, example["scores"], strict=True)):
            if not math.isclose(score, expected, rel_tol=SAME_SCORE, abs_tol=SAME_SCORE):
                raise SmokeTestFailed(f"{pipeline} scores example row {row} as {score}, in training it was {expected}")


CHECKS: Final[dict[str, list[Check]]] = {
    "etl": [check_ready, check_ingestions],
    "trainer": [check_ready, check_history],
    "predictor": [check_ready, check_examples],
    "monitor": [check_ready, check_dashboard],
    "mlflow": [],  # nobody outside the project's network reaches it: its startup probe has to do
}
"""Service → what is checked, in this order."""


def run_checks(service: str, site: Site, revision: str, pipelines: Sequence[str]) -> None:
    """Asks the revision at `site` all that its service must be able to answer.

    Raises:
        SmokeTestFailed: another revision answers there, or one of the checks fails.
    """
    if not CHECKS[service]:
        return
    found = site.revision()
    if found != revision:
        raise SmokeTestFailed(f"the tag leads to revision {found or 'without a name'}, not to {revision}")
    for check in CHECKS[service]:
        try:
            check(site, pipelines)
        except (KeyError, TypeError, ValueError) as error:
            raise SmokeTestFailed(f"{check.__name__}: an answer of another form than expected: {error!r}") from error


def see_serving(site: Site, revision: str) -> None:
    """Waits until the service's own address is answered by the revision, several times in a row.

    Raises:
        SmokeTestFailed: within two minutes it is not.
    """
    until = time.monotonic() + SERVES_WITHIN_S
    seen = 0
    while seen < IN_A_ROW:
        found = site.revision()
        seen = seen + 1 if found == revision else 0
        if time.monotonic() > until:
            raise SmokeTestFailed(f"revision {found or 'without a name'} answers, not {revision}")
        if found != revision:
            site.pause()


def _body(answer: requests.Response) -> Any:
    try:
        return msgspec.json.decode(answer.content)
    except msgspec.MsgspecError:
        return answer.text


def _refusal(answer: requests.Response, takes_keys: bool) -> str:
    told = f"answered {answer.status_code}: {answer.text.strip()[:300]}"
    if answer.status_code not in (401, 403):
        return told
    by_service = isinstance(body := _body(answer), dict) and "error" in body  # Cloud Run itself answers with a page
    if not by_service:
        return f"{told}; {MEND_ACCESS}"
    return f"{told}; {MEND_KEY}" if takes_keys else told
