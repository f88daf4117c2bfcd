"""The Cloud Run templates, rendered with names that stand for a project's and read as Cloud Run reads them."""

from string import Template
from typing import Any

import msgspec
import yaml

from pages import ROOT

VALUES = {
    "PROJECT": "acme-ml",
    "PROJECT_NUMBER": "123456789",
    "REGION": "europe-west1",
    "IMAGE": "registry/image:sha",
    "GITHUB_REPOSITORY": "acme/ml",
}
FILE_IN_MEMORY = 30
"""How many times its size a file takes while etl works on it: see its README."""
SERVICES = ("etl", "trainer", "predictor", "monitor", "mlflow")
JOBS = ("migrations", "training")
PLACEHOLDERS = ROOT / "infra/placeholders.yaml"
TEMPLATES = {
    **{name: ROOT / f"services/{name}/service.yaml" for name in SERVICES if name != "mlflow"},
    "mlflow": ROOT / "infra/mlflow/service.yaml",
    **{name: ROOT / f"infra/jobs/{name}.yaml" for name in JOBS},
}


class Workload(msgspec.Struct, frozen=True):
    """A service or a job."""

    name: str
    manifest: dict[str, Any]

    @property
    def annotations(self) -> dict[str, Any]:
        """Of the service or job itself."""
        found: dict[str, Any] = self.manifest["metadata"].get("annotations", {})
        return found

    @property
    def revision(self) -> dict[str, Any]:
        """The annotations of a revision or execution."""
        found: dict[str, Any] = self.manifest["spec"]["template"]["metadata"]["annotations"]
        return found

    @property
    def spec(self) -> dict[str, Any]:
        """What a revision, or a task of a job, consists of."""
        spec: dict[str, Any] = self.manifest["spec"]["template"]["spec"]
        return spec["template"]["spec"] if self.manifest["kind"] == "Job" else spec

    @property
    def main(self) -> dict[str, Any]:
        """The container that runs our image."""
        (container,) = [c for c in self.spec["containers"] if c["image"] == VALUES["IMAGE"]]
        found: dict[str, Any] = container
        return found

    @property
    def sidecars(self) -> list[dict[str, Any]]:
        """The other containers."""
        return [c for c in self.spec["containers"] if c is not self.main]

    @property
    def environ(self) -> dict[str, str]:
        """What the template sets, by name."""
        return {entry["name"]: entry.get("value", "") for entry in self.main["env"]}

    @property
    def max_instances(self) -> int:
        """The most instances of one revision."""
        return int(self.revision["autoscaling.knative.dev/maxScale"])


def load(name: str) -> Workload:
    """Renders and reads a template."""
    return Workload(name, yaml.safe_load(Template(TEMPLATES[name].read_text()).substitute(VALUES)))


def address(service: str) -> str:
    """The address that Cloud Run gives a service of ours."""
    return f"https://esteira-{service}-{VALUES['PROJECT_NUMBER']}.{VALUES['REGION']}.run.app"
