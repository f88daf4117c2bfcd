"""A release that this service answers with: its runtime, and what is compiled of its schema."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from esteira.release import Release
from esteira.runtime import ReleaseRuntime, picker
from esteira.schema import Value, entity_key
from esteira.scoring import Array
from predictor.decoding import Body, BodyDecoder
from predictor.examples import show_release
from predictor.native import Native, make_native
from predictor.redaction import Redactor, make_redactor


class ServedRelease(ReleaseRuntime):
    """Safe to share by threads, as its base is."""

    def __init__(self, folder: Path, manifest_sha256: str | None = None) -> None:
        super().__init__(folder, manifest_sha256)
        columns = [column.name for column in self.release.columns if column.known == "before"]
        self.redactor: Redactor | None = make_redactor(self.release)
        self.decoder = BodyDecoder(self.release.columns, self.release.features)
        self.native: Native | None = make_native(self.release, self.model) if self.redactor is None else None
        self._entity = picker([columns.index(name) for name in self.release.entity])
        self._event_time = columns.index(self.release.event_time) if self.release.event_time else None

    @cached_property
    def shown(self) -> Release:
        """The release as clients are shown it."""
        return show_release(self)

    def encode(self, read: Body) -> tuple[Array, Sequence[Sequence[Any]]]:
        """The rows of a body as the model takes them, and their features before that."""
        features = self.feature_rows(read.rows) if read.rows is not None else read.features or []
        return self.model.encoder.encode_rows(features), features

    def entity(self, row: Sequence[Value]) -> str:
        """The entity key of a row of typed values, in the order of the columns."""
        return entity_key(self._entity(row))

    def event_time(self, row: Sequence[Value]) -> datetime | None:
        """When the row happens; None where the pipeline has no event time, or the row none."""
        value = row[self._event_time] if self._event_time is not None else None
        return value if isinstance(value, datetime) else None
