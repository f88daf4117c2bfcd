"""The templates of services and jobs, filled in for one Google Cloud project."""

import re
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any, Final

import msgspec
import yaml

from esteira.exceptions import Problem, SettingsInvalid

PLACEHOLDERS: Final = Path("infra/placeholders.yaml")
MIGRATIONS: Final = Path("infra/jobs/migrations.yaml")
TRAINING: Final = Path("infra/jobs/training.yaml")
TARGETS: Final = {
    "etl": Path("services/etl/service.yaml"),
    "trainer": Path("services/trainer/service.yaml"),
    "predictor": Path("services/predictor/service.yaml"),
    "monitor": Path("services/monitor/service.yaml"),
    "mlflow": Path("infra/mlflow/service.yaml"),
}
"""What can be deployed, and its template."""
FORMS: Final = {
    "PROJECT": (r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "the id of a project"),
    "PROJECT_NUMBER": (r"[0-9]+", "the number of a project"),
    "REGION": (r"[a-z]+-[a-z]+[0-9]+", "of the form europe-west1"),
    "IMAGE": (
        r"[a-z0-9][a-z0-9./:_-]*(@sha256:[0-9a-f]{64}|:[0-9a-f]{40})",
        "an image by its digest, or with a commit as its tag: other tags move, and a deploy would see no change",
    ),
    "GITHUB_REPOSITORY": (r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", "of the form owner/name"),
}

Manifest = dict[str, Any]


class Templates:
    """The templates below `root`, each placeholder filled in with its value.

    Args:
        root: the work tree that the image was built from.
        values: placeholder → value.

    Raises:
        SettingsInvalid: `root` is no work tree of Esteira, or values are missing or wrong; names all of them.
    """

    def __init__(self, root: Path, values: dict[str, str]) -> None:
        self._root = root
        self._values = values
        explained = self._read(PLACEHOLDERS)
        problems = [Problem(_option(name), f"is missing: {explained[name]}") for name in explained if not values[name]]
        for name, value in values.items():
            form, expected = FORMS[name]
            if value and not re.fullmatch(form, value):
                problems.append(Problem(_option(name), f"is {value!r}, not {expected}"))
        if problems:
            raise SettingsInvalid("; ".join(map(str, problems)))

    def render(self, template: Path) -> Manifest:
        """Fills in a template.

        Raises:
            SettingsInvalid: it is missing, is not YAML, or has a placeholder that nobody knows.
        """
        return self._read(template, self._values)

    def _read(self, path: Path, values: dict[str, str] | None = None) -> Manifest:
        try:
            text = (self._root / path).read_text("utf-8")
            found = yaml.safe_load(text if values is None else Template(text).substitute(values))
        except OSError as error:
            mend = "call `esteira deploy` in a clone of the repository, or say --root"
            raise SettingsInvalid(f"{error}: {mend}") from error
        except KeyError as error:
            raise SettingsInvalid(f"{path}: placeholder {error} is not in {PLACEHOLDERS}") from error
        except (ValueError, yaml.YAMLError) as error:
            raise SettingsInvalid(f"{path}: {error}") from error
        if not isinstance(found, dict):
            raise SettingsInvalid(f"{path}: is no mapping")
        return found


def _option(placeholder: str) -> str:
    return f"--{placeholder.lower().replace('_', '-')}"


def name_revision(manifest: Manifest) -> str:
    """The revision that the manifest makes: the same one however often it is deployed."""
    template = msgspec.json.encode(manifest["spec"]["template"], order="deterministic")
    return f"{manifest['metadata']['name']}-{sha256(template).hexdigest()[:10]}"
