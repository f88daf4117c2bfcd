"""What follows what: a new revision without traffic, its smoke test, traffic, proof that it serves; or the way back.

The tag `stable` names the revision that proved to serve last; `candidate` the one that is being tried. A deploy that
dies leaves both, and the next one begins by sending all traffic to `stable`: nothing is kept anywhere else.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from esteira.exceptions import EsteiraError
from esteira_cli.deploy.cloud_run import CloudRun, CommandFailed, Service
from esteira_cli.deploy.smoke import CHECKS, Site, SmokeTestFailed, run_checks, see_serving
from esteira_cli.deploy.templates import Manifest, name_revision

STABLE: Final = "stable"
CANDIDATE: Final = "candidate"
TRIES: Final = 3
"""How often the way back is tried, and how often migrations that another deploy replaced are."""

Open = Callable[[str, str], Site]
"""Opens an address: the URL to ask, and the service's own, for which the token is made."""


class Outcome(msgspec.Struct, frozen=True):
    """How a deploy ended."""

    serves: bool
    """Whether the new revision serves."""
    text: str
    """Where it serves; or why it does not, and what does."""


class Rollout:
    """Deploys a service.

    Args:
        service: a key of `TARGETS`.
        cloud_run: where to.
        open_site: opens the addresses that the smoke test asks.
        pipelines: the names of the work tree's pipelines.
        say: told what is done, for people who wait.
    """

    def __init__(
        self, service: str, cloud_run: CloudRun, open_site: Open, pipelines: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self._service = service
        self._cloud_run = cloud_run
        self._open = open_site
        self._pipelines = pipelines
        self._say = say

    def deploy(self, manifest: Manifest) -> Outcome:
        """Brings the manifest's revision to serve, or leaves in place, or puts back, what served.

        Killed anywhere and called again, with this manifest or another, it comes to the same end.

        Raises:
            CommandFailed: gcloud refuses already to read.
        """
        name, revision = manifest["metadata"]["name"], name_revision(manifest)
        before = self._cloud_run.find_service(name)
        keep = _kept(before) or revision
        if keep == revision:
            self._say(f"{name} has no other revision to fall back to: {revision} gets all traffic at once")
        try:
            url = self._try_out(name, revision, keep, manifest)
        except BaseException as error:
            standing = self._go_back(name, revision, keep, error)
            if not isinstance(error, EsteiraError):
                raise
            return Outcome(False, f"{revision} does not serve: {error}\n{standing}")
        return Outcome(True, f"{revision} serves at {url}")

    def _try_out(self, name: str, revision: str, keep: str, manifest: Manifest) -> str:
        self._cloud_run.replace_service(_with_traffic(manifest, revision, keep))
        found = self._look(name)
        candidate = found.tagged(CANDIDATE)
        if candidate is None:
            raise CommandFailed(f"{name} has no revision with the tag {CANDIDATE}: another deploy runs")
        if CHECKS[self._service]:
            self._say(f"smoke test of {revision} at {candidate.url}")
            run_checks(self._service, self._open(candidate.url, found.url), revision, self._pipelines)
        self._cloud_run.move_traffic(name, revision, {CANDIDATE: revision, STABLE: keep})
        self._see_serving(name, revision)
        self._cloud_run.move_traffic(name, revision, {STABLE: revision})
        return found.url

    def _see_serving(self, name: str, revision: str) -> None:
        found = self._look(name)
        if not found.serves_only(revision):
            raise SmokeTestFailed(f"traffic goes to {found.serving}, not to {revision}: another deploy runs")
        if CHECKS[self._service]:
            see_serving(self._open(found.url, found.url), revision)

    def _look(self, name: str) -> Service:
        found = self._cloud_run.find_service(name)
        if found is None:
            raise CommandFailed(f"service {name} is gone")
        return found

    def _go_back(self, name: str, revision: str, keep: str, why: BaseException) -> str:
        """Sends all traffic to `keep`; says what serves now."""
        self._say(f"rolling back: {why or type(why).__name__}")
        if keep == revision:
            return "There is no other revision to go back to: mend it and deploy again."
        for _ in range(TRIES):
            try:
                self._cloud_run.move_traffic(name, keep, {STABLE: keep})
            except EsteiraError as error:
                failed = error
            else:
                return f"{keep} serves, as before."
        return f"Nor did the way back succeed; deploy again, or send traffic to {keep} by hand: {failed}"


def migrate(cloud_run: CloudRun, job: Manifest) -> None:
    """Brings the database's schema up to date with the image's code.

    Services of one commit deploy side by side, each with its own image in the one job: what counts is which one ran.

    Raises:
        CommandFailed: the job failed, or other deploys replaced it each time.
    """
    name, image = job["metadata"]["name"], job["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["image"]
    for _ in range(TRIES):
        cloud_run.replace_job(job)
        if cloud_run.execute_job(name) == image:
            return
    raise CommandFailed(f"{name} ran another image {TRIES} times: other deploys replace it; deploy again")


def _kept(service: Service | None) -> str | None:
    """The revision to fall back to: the last that proved to serve, else the one that serves."""
    if service is None:
        return None
    stable = service.tagged(STABLE)
    return stable.revision_name if stable else service.serving


def _with_traffic(manifest: Manifest, revision: str, keep: str) -> Manifest:
    spec = manifest["spec"]
    template = {**spec["template"], "metadata": {**spec["template"].get("metadata", {}), "name": revision}}
    traffic = [
        {"revisionName": keep, "percent": 100, **({"tag": STABLE} if keep != revision else {"tag": CANDIDATE})},
        *([{"revisionName": revision, "percent": 0, "tag": CANDIDATE}] if keep != revision else []),
    ]
    return {**manifest, "spec": {**spec, "template": template, "traffic": traffic}}
