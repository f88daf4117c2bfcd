"""Predictions to be spooled, and a stand-in for Pub/Sub that fails when it is told to."""

from datetime import UTC, datetime
from uuid import uuid4

from esteira.events import Message, PredictionsServed, decode
from predictor.prediction_log import LoggedPrediction

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Mailbox:
    """Takes messages as Pub/Sub does; raises what stands in `errors` first."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[Exception | None] = []

    def publish(self, message: Message) -> None:
        """Takes one."""
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.messages.append(message)

    def events(self) -> list[PredictionsServed]:
        """What was said."""
        return [decode(PredictionsServed, m.data, m.attributes) for m in self.messages]

    def scores(self, version: str = "v1") -> list[float]:
        """Of the predictions of a release, in the order in which they came."""
        return [p.score for event in self.events() if event.model_version == version for p in event.predictions]


def logged(count: int, first: int = 0, width: int = 2) -> list[LoggedPrediction]:
    """Predictions whose scores count from `first` on."""
    return [
        LoggedPrediction(
            id=str(uuid4()), entity="ü|1", event_time=MOMENT, served_at=MOMENT, score=score, features=["a\n\t"] * width
        )
        for score in map(float, range(first, first + count))
    ]
