"""The Dockerfiles, read as a builder reads them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pages import ROOT

SERVICES = ("etl", "trainer", "predictor", "monitor")
DOCKERFILES = {
    **{name: ROOT / f"services/{name}/Dockerfile" for name in SERVICES},
    "mlflow": ROOT / "infra/mlflow/Dockerfile",
}


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile, with what continues it."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """An exec form's words.

        Raises:
            ValueError: it has the shell's form.
        """
        words: list[str] = json.loads(self.value[self.value.index("[") :])
        return words


@dataclass(frozen=True)
class Image:
    """What a Dockerfile makes."""

    text: str

    @property
    def stages(self) -> list[list[Instruction]]:
        """The instructions, each stage beginning with its FROM."""
        stages: list[list[Instruction]] = []
        for instruction in _instructions(self.text):
            if instruction.name == "FROM":
                stages.append([])
            stages[-1].append(instruction)
        return stages

    def all(self, name: str) -> list[Instruction]:
        """The instructions of a name in all stages."""
        return [instruction for stage in self.stages for instruction in stage if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """The instruction of a name that counts: the last one in the last stage."""
        return [instruction for instruction in self.stages[-1] if instruction.name == name][-1]

    @property
    def environ(self) -> dict[str, str]:
        """What the image sets for its process."""
        values = " ".join(each.value for each in self.stages[-1] if each.name == "ENV")
        return dict(re.findall(r"(\w+)=(\S*)", values))

    @property
    def sources(self) -> list[str]:
        """The paths that are copied from the build context."""
        copies = [each.value.split() for each in self.all("COPY") if "--from=" not in each.value]
        return [source for words in copies for source in words[:-1]]


def read_image(path: Path) -> Image:
    """Reads a Dockerfile."""
    return Image(path.read_text())


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]
