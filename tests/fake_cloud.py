"""A Cloud Run of a test's own: what its fake gcloud keeps, and answers as each revision gives them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from flask import request as asked
from werkzeug.wrappers import Request, Response

from esteira.exceptions import Unauthenticated
from esteira.settings import ServiceSettings
from esteira.web import create_base_app, json_response, name_build
from gcloud import recorded
from pages import ROOT

FAKE = ROOT / "tests/fake_cloud_run.py"
REGISTRY = "europe-west1-docker.pkg.dev/acme-ml/esteira"
OLD, NEW = "a" * 40, "b" * 40


def image(service: str, commit: str) -> str:
    return f"{REGISTRY}/{service}:{commit}"


class Cloud:
    """What the fake gcloud keeps, seen by tests, and how revisions answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.url = ""
        self.stubborn: str | None = None
        self.scores = {OLD: [0.25], NEW: [0.25]}
        self.refused: dict[str, str] = {}
        self.unready: set[str] = set()
        self.token = "a-token"
        self.key = ""
        """Without which a guarded service answers no question about pipelines."""
        self.guarded = {"predictor"}

    def plan(self, **troubles: str) -> None:
        """What goes wrong at which call, `at_3="fail"`, counted from now."""
        self.write("plan.json", {name.removeprefix("at_"): trouble for name, trouble in troubles.items()})
        self.write("calls", 0)

    def write(self, name: str, value: Any) -> None:
        (self.state / name).write_text(json.dumps(value))

    @property
    def calls_made(self) -> int:
        """How many since the last plan."""
        return int((self.state / "calls").read_text())

    @property
    def calls(self) -> list[str]:
        return [" ".join(call) for call in recorded(self.folder)]

    @property
    def kept(self) -> dict[str, Any]:
        file = self.state / "state.json"
        return json.loads(file.read_text()) if file.exists() else {"services": {}, "jobs": {}, "executions": []}

    def service(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.kept["services"][f"esteira-{name}"]
        return found

    def commits(self, name: str) -> list[str]:
        """Of all revisions that there are."""
        return [self._commit(name, revision) for revision in self.service(name)["revisions"]]

    def serving(self, name: str) -> str:
        """The commit that has all traffic."""
        (revision,) = {t["revisionName"] for t in self.service(name)["traffic"] if t["percent"]}
        return self._commit(name, revision)

    def tags(self, name: str) -> dict[str, str]:
        """Tag → commit."""
        return {t["tag"]: self._commit(name, t["revisionName"]) for t in self.service(name)["traffic"] if "tag" in t}

    def _commit(self, name: str, revision: str) -> str:
        container = self.service(name)["revisions"][revision]["spec"]["containers"][0]
        return str(container["image"]).rpartition(":")[2]

    def answer(self, request: Request) -> Any:
        """Sends a request to the revision that its address leads to."""
        tag, _, name = request.path.split("/")[1].rpartition("---esteira-")
        name = name.removeprefix("esteira-")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return Response("who asks?", 403)
        traffic = self.service(name)["traffic"]
        target = next(t for t in traffic if (t.get("tag") == tag if tag else t["percent"]))
        commit = self.stubborn if not tag and self.stubborn else self._commit(name, target["revisionName"])
        path = "/" + request.path.split("/", 2)[2]
        with self._app(
            name, commit, target["revisionName"] if commit != self.stubborn else "old"
        ).test_client() as client:
            return Response.from_app(client.application, {**request.environ, "PATH_INFO": path})

    def _app(self, name: str, commit: str, revision: str) -> Flask:
        settings = ServiceSettings(google_cloud_project="acme-ml", bucket="b", k_revision=revision, code_version=commit)
        app = name_build(create_base_app(name, None), settings)
        if commit in self.unready:
            app.add_url_rule("/health/unready", "unready", lambda: "")
            app.view_functions["ready"] = lambda: ("not ready", 400)
        if name in self.guarded:
            app.before_request(self._require_key)
        entry = {"pipeline": "p", "version": "1", **({"refused": r} if (r := self.refused.get(commit)) else {})}
        app.add_url_rule("/pipelines", "pipelines", lambda: json_response([entry]))
        example = {"rows": [{"x": 1}], "scores": [0.25]}
        app.add_url_rule("/pipelines/p", "pipeline", lambda: json_response({"example": example}))
        scores = [{"score": score} for score in self.scores[commit]]
        app.add_url_rule(
            "/pipelines/p/predict", "predict", lambda: json_response({"predictions": scores}), methods=["POST"]
        )
        for part in ("ingestions", "promotions"):
            app.add_url_rule(f"/pipelines/<pipeline>/{part}", part, lambda **_: json_response({"rows": []}))
        app.add_url_rule("/", "dashboard", lambda: "a page")
        return app

    def _require_key(self) -> None:
        if asked.path.startswith("/pipelines") and asked.headers.get("X-Api-Key", "") != self.key:
            raise Unauthenticated("send X-Api-Key")


Deploy = Callable[..., "subprocess.CompletedProcess[str]"]
"""Calls `esteira deploy` with a service, a commit, options, and changes of the environment."""
