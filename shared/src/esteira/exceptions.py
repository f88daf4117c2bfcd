"""Every error that Esteira raises on purpose.

    EsteiraError
    ├── PermanentError            trying again cannot help: recorded, logged, acknowledged
    │   ├── BadInput              a request, row or event breaks its schema; carries all its problems
    │   ├── PipelineInvalid       a pipeline's folder has a mistake: file, line, what to do
    │   ├── SettingsInvalid       an environment variable is missing or wrong
    │   ├── UnknownPipeline       no pipeline of that name
    │   ├── NotFound              the object, row or release does not exist
    │   ├── Conflict              somebody else wrote first
    │   ├── ReleaseRefused        a release's bytes or model are not what its manifest says
    │   ├── NotEnoughData         too few rows to train, test or measure
    │   ├── Unauthenticated       no key or token, or one that proves nothing
    │   └── Forbidden             a key or token that proves somebody who may not do this
    └── TransientError            trying again later may help: not acknowledged
        ├── Unavailable           Postgres, bucket, Pub/Sub or MLflow does not answer
        ├── Saturated             this process has as much at hand as it may
        ├── LeaseLost             another worker holds the lease by now
        └── Busy                  another worker is at the same work

`PermanentError` and `TransientError` decide what happens to a delivery; `esteira.web` maps classes to HTTP answers.
A class's docstring is its message when none is given.
"""

import msgspec

MAX_TOLD = 600
"""Characters of a problem's path, and of its message."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where."""

    path: str
    """Where, in the notation of the input: `rows[0].distance`, `pipeline.yaml:12`, `line 7`."""
    message: str
    """What is wrong, what was expected, and what to do."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def cut(self) -> "Problem":
        """Without the middle of what is long: a name that a client made up may have megabytes."""
        return Problem(_cut(self.path), _cut(self.message))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TOLD else f"{text[: MAX_TOLD // 2]}…{text[-MAX_TOLD // 4 :]}"


class EsteiraError(Exception):
    """Something went wrong in Esteira."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or type(self).__name__).strip())


class PermanentError(EsteiraError):
    """Trying again cannot help."""


class TransientError(EsteiraError):
    """Trying again later may help."""


class BadInput(PermanentError):
    """The input breaks its schema."""

    def __init__(self, problems: list[Problem], more: int = 0) -> None:
        self.problems = [problem.cut() for problem in problems]
        told = [*map(str, self.problems), *([f"and {more} more"] if more else [])]
        super().__init__("; ".join(told) or None)
        self.more = more
        """How many problems there are besides, which are not named."""


class PipelineInvalid(PermanentError):
    """The pipeline's folder has a mistake."""


class SettingsInvalid(PermanentError):
    """An environment variable is missing or wrong."""


class UnknownPipeline(PermanentError):
    """There is no pipeline of that name."""


class NotFound(PermanentError):
    """It does not exist."""


class Conflict(PermanentError):
    """Somebody else wrote first."""


class ReleaseRefused(PermanentError):
    """The release is not what its manifest says."""


class NotEnoughData(PermanentError):
    """There are too few rows."""


class Unauthenticated(PermanentError):
    """The request proves no identity that may call this."""


class Forbidden(PermanentError):
    """Whoever this is, they may not do this."""


class Unavailable(TransientError):
    """A service that this needs does not answer."""


class Saturated(TransientError):
    """This process has as much at hand as it may; try again soon."""


class LeaseLost(TransientError):
    """Another worker holds the lease by now."""


class Busy(TransientError):
    """Another worker is at the same work."""
