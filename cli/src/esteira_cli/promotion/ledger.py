"""The ledger of one pipeline, asked of the trainer and changed through it."""

from typing import Any
from urllib.parse import quote

import msgspec

from esteira_cli.production import Production


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger."""

    generation: int
    release_version: str
    previous_version: str | None
    share: float
    shadow: bool = False
    by: str
    reason: str
    created_at: str
    metrics: dict[str, float] = {}

    @property
    def mode(self) -> str:
        """`champion`, or how the release was tried out."""
        if self.share == 1:
            return "champion"
        return "shadow" if self.shadow else "canary"


class Served(msgspec.Struct, frozen=True):
    """What the predictor says of the champion that it serves."""

    version: str
    generation: int
    reason: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether it serves this one whatever the ledger says, in which generations begin with 1."""
        return self.generation == 0


class Ledger:
    """What was promoted, the newest first."""

    def __init__(self, production: Production, pipeline: str, by: str) -> None:
        self._production = production
        self._path = f"/pipelines/{quote(pipeline, safe='')}"
        self._by = by

    @property
    def can_see_served(self) -> bool:
        """Whether the predictor can be asked."""
        return self._production.knows("predictor")

    def rows(self) -> list[Entry]:
        """The newest rows."""
        answer = self._production.get("trainer", f"{self._path}/promotions")
        return msgspec.convert(answer["promotions"], list[Entry])

    def promote(
        self,
        version: str,
        share: float,
        reason: str,
        expected_generation: int | None = None,
        *,
        shadow: bool = False,
    ) -> int:
        """Promotes, or begins a canary or shadow; gives the new generation."""
        wanted: dict[str, Any] = {"version": version, "share": share, "reason": reason, "by": self._by}
        wanted |= {"shadow": True} if shadow else {}  # a trainer of before shadows knows no such key
        answer = self._production.post(
            "trainer", f"{self._path}/promotions", {**wanted, "expected_generation": expected_generation}
        )
        return int(answer["generation"])

    def rollback(self, reason: str, expected_generation: int | None = None) -> dict[str, Any]:
        """Ends the canary or shadow, or brings the previous champion back; gives what the ledger says then."""
        wanted = {"reason": reason, "by": self._by, "expected_generation": expected_generation}
        answer: dict[str, Any] = self._production.post("trainer", f"{self._path}/rollback", wanted)
        return answer

    def canary(self) -> dict[str, Any]:
        """How the monitor judges the canary or shadow that runs."""
        answer: dict[str, Any] = self._production.get("monitor", f"{self._path}/canary")
        return answer

    def served(self) -> Served:
        """The champion that the predictor serves."""
        return msgspec.convert(self._production.get("predictor", self._path)["champion"], Served)
