"""Cloud Run by way of gcloud: the one place that calls it."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from esteira.exceptions import EsteiraError, SettingsInvalid, Unavailable
from esteira_cli.deploy.templates import Manifest

SECONDS: Final = {
    "list": 120.0,
    "replace": 900.0,
    "update-traffic": 300.0,
    "execute": 1500.0,
    "print-identity-token": 60.0,
}
"""How long gcloud may take, by verb: `replace` waits for probes, `execute` for the job."""


class CommandFailed(EsteiraError):
    """gcloud refused."""


class Target(msgspec.Struct, frozen=True, rename="camel"):
    """A share of a service's traffic, or a revision with an address of its own."""

    revision_name: str = ""
    percent: int = 0
    tag: str = ""
    url: str = ""


class Service(msgspec.Struct, frozen=True):
    """A service as it is."""

    url: str
    traffic: list[Target]

    @property
    def serving(self) -> str | None:
        """The revision with the most traffic."""
        busy = [target for target in self.traffic if target.percent]
        return max(busy, key=lambda target: target.percent).revision_name if busy else None

    def tagged(self, tag: str) -> Target | None:
        """The revision that has the tag."""
        return next((target for target in self.traffic if target.tag == tag), None)

    def serves_only(self, revision: str) -> bool:
        """Whether all traffic goes to the revision."""
        return {target.revision_name for target in self.traffic if target.percent} == {revision}


class CloudRun:
    """Services and jobs of one project in one region.

    Args:
        project: its id.
        region: where services and jobs are.
        say: told each command before it runs.
    """

    def __init__(self, project: str, region: str, say: Callable[[str], None]) -> None:
        self._where = [f"--project={project}", f"--region={region}", "--quiet"]
        self._say = say

    def find_service(self, name: str) -> Service | None:
        """The service; None where there is none yet.

        Raises:
            CommandFailed: gcloud says no.
            Unavailable: gcloud does not end in time.
            SettingsInvalid: there is no gcloud.
        """
        listed = _decoded(self._call("run", "services", "list", f"--filter=metadata.name={name}", "--format=json"))
        found = next((one for one in listed if one["metadata"]["name"] == name), None)
        if found is None:
            return None
        status = found.get("status", {})
        return Service(status.get("url", ""), msgspec.convert(status.get("traffic", []), list[Target]))

    def replace_service(self, manifest: Manifest) -> None:
        """Makes the service what the manifest says, and waits until its new revision is ready or failed."""
        self._replace("services", manifest)

    def move_traffic(self, name: str, revision: str, tags: dict[str, str]) -> None:
        """Sends all traffic to the revision; tag → revision is all that is tagged afterwards."""
        given = ",".join(f"{tag}={to}" for tag, to in tags.items())
        self._call("run", "services", "update-traffic", name, f"--to-revisions={revision}=100", f"--set-tags={given}")

    def replace_job(self, manifest: Manifest) -> None:
        """Makes the job what the manifest says."""
        self._replace("jobs", manifest)

    def execute_job(self, name: str) -> str:
        """Runs the job to its end; gives the image that ran."""
        execution = _decoded(self._call("run", "jobs", "execute", name, "--wait", "--format=json"))
        return str(execution["spec"]["template"]["spec"]["containers"][0]["image"])

    def identity_token(self) -> str:
        """The ID token of whoever is logged in."""
        return self._run(["auth", "print-identity-token"]).strip()

    def _replace(self, kind: str, manifest: Manifest) -> None:
        with tempfile.TemporaryDirectory(prefix="esteira-deploy-") as folder:
            file = Path(folder) / f"{manifest['metadata']['name']}.json"
            file.write_bytes(msgspec.json.encode(manifest))
            self._call("run", kind, "replace", str(file))

    def _call(self, *arguments: str) -> str:
        return self._run([*arguments, *self._where])

    def _run(self, arguments: list[str]) -> str:
        self._say(f"gcloud {' '.join(arguments)}")
        verb = next(word for word in arguments if word in SECONDS)
        try:
            ran = subprocess.run(
                ["gcloud", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS[verb]
            )
        except FileNotFoundError as error:
            raise SettingsInvalid("there is no gcloud on the PATH: install the Google Cloud CLI") from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"gcloud {' '.join(arguments[:3])} did not end within {SECONDS[verb]:.0f} s") from error
        if ran.returncode:
            raise CommandFailed(f"gcloud {' '.join(arguments[:4])} failed: {_last_lines(ran.stderr)}")
        return ran.stdout


def _decoded(output: str) -> Any:
    try:
        return msgspec.json.decode(output)
    except msgspec.MsgspecError as error:
        raise CommandFailed(f"gcloud answered what is not JSON: {output[:200]!r}") from error


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-8:]) or "it said nothing"
