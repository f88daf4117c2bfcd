"""What a validation found, for all pipelines."""

import msgspec

from esteira_cli.validate.checks import Finding


class PipelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one pipeline."""

    pipeline: str
    version: str | None
    """Of the champion; None where nothing was promoted yet."""
    findings: list[Finding]
    notes: list[str] = []

    @property
    def passed(self) -> bool:
        """Whether nothing stops the change."""
        return all(finding.verdict != "stopped" for finding in self.findings)


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about all of them."""

    base: str
    head: str
    results: list[PipelineResult]

    @property
    def passed(self) -> bool:
        """Whether nothing stops the change."""
        return all(result.passed for result in self.results)
