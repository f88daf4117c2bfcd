"""What services tell one another, in the past tense.

Bodies are JSON; attributes follow the binary form of CloudEvents 1.0 (`ce-id`, `ce-type`, `ce-source`,
`ce-specversion`, `ce-time`) with W3C `traceparent`. Writing is strict; reading passes over fields that it does not
know, so that a newer writer does not break an older reader.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid4

import msgspec

from esteira.exceptions import BadInput, Problem


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a pipeline."""

    topic: ClassVar[str]


class RawDataUploaded(Event, frozen=True, kw_only=True):
    """A file was uploaded. Said by the bucket itself, in attributes alone: see `decode`."""

    topic: ClassVar[str] = "raw-data-uploaded"
    bucket: str
    object: str
    generation: int


class DatasetPrepared(Event, frozen=True, kw_only=True):
    """Etl wrote a new dataset version."""

    topic: ClassVar[str] = "dataset-prepared"
    pipeline: str
    number: int
    version: str
    rows: int
    ingestion_id: UUID


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a prediction about `entity` turned out to be."""

    entity: str
    label: float
    event_time: datetime | None = None


class OutcomesObserved(Event, frozen=True, kw_only=True):
    """Labels arrived: with a file, whose rows are in the table `outcomes` already, or here, one by one."""

    topic: ClassVar[str] = "outcomes-observed"
    pipeline: str
    source: str
    """`ingestion:<id>` or `feedback`."""
    rows: int
    first_event_time: datetime | None = None
    last_event_time: datetime | None = None
    outcomes: list[Outcome] = []


class RetrainRequested(Event, frozen=True, kw_only=True):
    """Someone wants a new model of the newest dataset version."""

    topic: ClassVar[str] = "retrain-requested"
    pipeline: str
    reason: str
    requested_by: str
    """`monitor`, `schedule`, or a person's name. For one dataset version machines ask once, people at will."""
    evidence: dict[str, Any] = {}


class ModelApproved(Event, frozen=True, kw_only=True):
    """A release passed its gates."""

    topic: ClassVar[str] = "model-approved"
    pipeline: str
    version: str
    path: str
    sha256: str
    metrics: dict[str, float]


class ModelPromoted(Event, frozen=True, kw_only=True):
    """The ledger has a new row: a release became the champion, or a canary or shadow of it began."""

    topic: ClassVar[str] = "model-promoted"
    pipeline: str
    version: str
    generation: int
    previous: str | None
    """The champion until then; under a canary or shadow it stays."""
    reason: str
    share: float = 1.0
    """Of entities that the release answers for; below 1 it is a canary, or a shadow."""
    shadow: bool = False
    """Whether the release scores its share without answering."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that the predictor gave, or what a shadow would have answered."""

    id: UUID
    """Of a shadow, that of the answer which was given instead."""
    entity: str | None
    event_time: datetime
    """The row's own event time, or `served_at` where the pipeline has none."""
    served_at: datetime
    score: float
    features: list[float | str | None]
    """In the order of the release's features, before encoding; None is missing, or withheld by the release's
    `redaction`."""
    row: dict[str, Any] | None = None
    """The raw row as the client sent it, less what is withheld, for a sampled share of predictions: what
    `esteira validate` replays."""


class PredictionsServed(Event, frozen=True, kw_only=True):
    """The predictor answered, or scored in the shadow of its answers."""

    topic: ClassVar[str] = "predictions-served"
    pipeline: str
    model_version: str
    predictions: list[Prediction]
    failures: int = 0
    """Rows that this release, as a challenger, failed to answer; the champion answered them instead."""
    microseconds: int = 0
    """Of the processor's time, spent on features and scores: alike for answers and for shadows."""
    shadow: bool = False
    """Whether nobody was answered with these: the release ran in the shadow of the champion."""


E = TypeVar("E", bound=Event)

EVENTS: tuple[type[Event], ...] = (
    RawDataUploaded,
    DatasetPrepared,
    OutcomesObserved,
    RetrainRequested,
    ModelApproved,
    ModelPromoted,
    PredictionsServed,
)


class Message(msgspec.Struct, frozen=True):
    """An event in the form that Pub/Sub carries."""

    topic: str
    data: bytes
    attributes: dict[str, str]


def encode(event: Event, source: str, traceparent: str | None = None) -> Message:
    """Gives the event an identity and the form that Pub/Sub carries; `source` is the service that says it."""
    return envelop(event.topic, msgspec.json.encode(event), source, uuid4(), traceparent)


def envelop(topic: str, data: bytes, source: str, event_id: UUID, traceparent: str | None = None) -> Message:
    """The form that Pub/Sub carries of an event that is JSON already, and whose identity is known."""
    attributes = {
        "ce-id": str(event_id),
        "ce-type": f"esteira.{topic}",
        "ce-source": f"/esteira/{source}",
        "ce-specversion": "1.0",
        "ce-time": datetime.now(UTC).isoformat(),
        "content-type": "application/json",
    }
    if traceparent:
        attributes["traceparent"] = traceparent
    return Message(topic, data, attributes)


def decode(cls: type[E], data: bytes, attributes: Mapping[str, str]) -> E:
    """Reads an event of class `cls`.

    Raises:
        BadInput: the body is not JSON of that class, or its `ce-type` names another.
    """
    if cls is RawDataUploaded:
        return msgspec.convert(_bucket_fields(attributes), cls, strict=False)
    said = attributes.get("ce-type")
    if said not in (None, f"esteira.{cls.topic}"):
        raise BadInput([Problem("attributes.ce-type", f"is {said!r}, expected 'esteira.{cls.topic}'")])
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadInput([Problem("data", str(error))]) from error


def _bucket_fields(attributes: Mapping[str, str]) -> dict[str, str]:
    """Cloud Storage names its attributes `bucketId`, `objectId`, `objectGeneration`."""
    wanted = {"bucket": "bucketId", "object": "objectId", "generation": "objectGeneration"}
    missing = [name for name in wanted.values() if name not in attributes]
    if missing or not attributes["objectGeneration"].isdigit():
        raise BadInput([Problem("attributes", f"a bucket notification carries {', '.join(wanted.values())}")])
    return {field: attributes[name] for field, name in wanted.items()}
