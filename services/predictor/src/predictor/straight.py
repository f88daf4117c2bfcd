"""Ordinary requests of features, answered in native code from the body to what is logged of it.

It answers what `inference.predict` answers, and logs the same, but makes no object of a value: see
`esteira_kernel.answers`. It takes only bodies that the rules take beyond doubt, and leaves all else to them, wrong or
right.
"""

import os
import re
import time
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np

from esteira.links import inverse_link
from esteira.release import Release
from esteira.schema import MAX_STRING, Feature
from esteira.scoring import Model
from esteira.trees import TreesModel
from esteira_kernel.answers import RANDOM_BYTES, Answerer
from esteira_kernel.rows import UNREADABLE, RowReader
from predictor.decoding import MAX_ROWS
from predictor.prediction_log import PredictionLog

_FEATURES = re.compile(rb'\s*\{\s*"features"')
"""Raw rows are not to be looked at twice, nor room made for them."""


class Straight:
    """Answers for one release, whose log takes features as they came. Safe to share by threads."""

    def __init__(self, release: Release, model: Model) -> None:
        self._pipeline, self._version = release.pipeline, release.version
        self._head = msgspec.json.encode({"pipeline": release.pipeline, "model_version": release.version})[:-1]
        self._answerer = _make_answerer(release, model)

    def answer(self, body: bytes, log: PredictionLog) -> bytes | None:
        """The JSON of an `inference.PredictAnswer`; its predictions are on disk when this returns.

        Returns:
            None where `inference.predict` is to answer.
        """
        if not _FEATURES.match(body):
            return None
        began = time.perf_counter_ns()  # a thread's own clock takes longer to ask than most answers take
        found = self._answerer.answer(body, MAX_ROWS, os.urandom(RANDOM_BYTES), time.time_ns() // 1000)
        if found is None:
            return None
        log.write(self._pipeline, self._version, found.records, (time.perf_counter_ns() - began) // 1000)
        return b'%b,"predictions":%b}' % (self._head, found.answers)


def _make_answerer(release: Release, model: Model) -> Answerer:
    reader, threshold = _make_reader(release.features), release.threshold
    if isinstance(model, TreesModel) and model.outputs == 1:
        link = model.metadata.link
        if link == "identity" or (link == "logit" and _has_the_bits_of_logit()):
            return Answerer(reader, model.sums, threshold, logit=link == "logit")
    return Answerer(reader, model.score, threshold, logit=False)


def _make_reader(features: Sequence[Feature]) -> RowReader:
    """Categories that are longer than a string may be are left to the rules, which refuse them."""
    known = [[c if len(c) <= MAX_STRING else UNREADABLE for c in f.categories] for f in features]
    categories = [None if f.kind == "numeric" else texts for f, texts in zip(features, known, strict=True)]
    return RowReader([feature.name for feature in features], categories)


@cache
def _has_the_bits_of_logit() -> bool:
    """Whether native code makes the scores that `esteira.links` makes here, with this C library."""
    sums = np.random.default_rng(0).normal(scale=10, size=500)
    made = Answerer(RowReader([], []), lambda matrix: matrix[:, 0], None, logit=True).scores(sums)
    return bool((made == inverse_link("logit", sums.reshape(-1, 1))).all())
