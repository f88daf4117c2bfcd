"""What can go wrong while the local stack starts and stops."""

from esteira.exceptions import EsteiraError


class StackError(EsteiraError):
    """The local stack could not be started or stopped."""


class ProcessFailed(StackError):
    """A process of the stack ended, or never became healthy; the message carries the end of its log."""


class Cancelled(StackError):
    """Waiting was given up because something else failed first."""


class StackBusy(StackError):
    """Another command is at work on the same stack."""
