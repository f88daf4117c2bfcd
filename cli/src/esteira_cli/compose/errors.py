"""What can go wrong while containers are started and stopped."""

from esteira_cli.stack.errors import StackError


class ComposeError(StackError):
    """The containers could not be started or stopped."""


class EngineMissing(ComposeError):
    """There is no Docker engine, or nothing that drives Compose."""
