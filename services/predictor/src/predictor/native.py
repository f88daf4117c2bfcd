"""What native code needs to know of a release, to answer ordinary requests without an object for each value."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np

from esteira.links import inverse_link
from esteira.release import Release
from esteira.schema import MAX_STRING, Feature
from esteira.scoring import Model
from esteira.trees import TreesModel
from esteira_kernel.answers import Answerer
from esteira_kernel.rows import RowReader


class Native(NamedTuple):
    """Of one release. Safe to share by threads."""

    reader: RowReader
    answerer: Answerer
    head: bytes
    """What an answer begins with, as JSON without the closing brace."""


def make_native(release: Release, model: Model) -> Native | None:
    """None where a category is longer than a string of a request may be: the reader knows no such bound."""
    if any(len(category) > MAX_STRING for feature in release.features for category in feature.categories):
        return None
    head = msgspec.json.encode({"pipeline": release.pipeline, "model_version": release.version})[:-1]
    return Native(_make_reader(release.features), make_answerer(model, release.threshold), head)


def make_answerer(model: Model, threshold: float | None) -> Answerer:
    """Asks the model itself where native code would not make its scores, to the bit."""
    if isinstance(model, TreesModel) and model.outputs == 1:
        link = model.metadata.link
        if link == "identity" or (link == "logit" and has_the_bits_of_logit()):
            return Answerer(model.sums, threshold, logit=link == "logit")
    return Answerer(model.score, threshold, logit=False)


@cache
def has_the_bits_of_logit() -> bool:
    """Whether native code makes the scores that `esteira.links` makes here, with this C library."""
    sums = np.random.default_rng(0).normal(scale=10, size=500)
    made = Answerer(lambda matrix: matrix[:, 0], None, logit=True).scores(sums)
    return bool((made == inverse_link("logit", sums.reshape(-1, 1))).all())


def _make_reader(features: Sequence[Feature]) -> RowReader:
    categories = [None if feature.kind == "numeric" else feature.categories for feature in features]
    return RowReader([feature.name for feature in features], categories)
