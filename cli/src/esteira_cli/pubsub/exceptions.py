"""What the emulator refuses.

PubSubError
├── InvalidArgument      the request itself is wrong
├── NotFound             no such topic or subscription
├── AlreadyExists        that name is taken
├── FailedPrecondition   right request, wrong state
└── Unsupported          Pub/Sub has it, this emulator does not
StateLocked              another process owns the state folder
"""


class PubSubError(Exception):
    """A request that Pub/Sub would refuse; the message is the answer that the caller reads."""


class InvalidArgument(PubSubError):
    """The request itself is wrong."""


class NotFound(PubSubError):
    """No such topic or subscription."""


class AlreadyExists(PubSubError):
    """That name is taken."""


class FailedPrecondition(PubSubError):
    """The request is right, the state of the resource is not."""


class Unsupported(PubSubError):
    """Pub/Sub can do it, this emulator cannot."""


class StateLocked(Exception):
    """Another process owns the state folder."""
