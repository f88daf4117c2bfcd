from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.events import Prediction
from esteira.exceptions import BadInput
from esteira.profile import Profile, describe_categorical, describe_numeric
from monitor.profiles import count_cells

PROFILE = Profile(
    features=[describe_numeric("weight", list(range(100))), describe_categorical("depot", ["a", "b"] * 50)],
    score=describe_numeric("score", np.linspace(0, 1, 100)),
    rows=100,
)
START = datetime(2024, 1, 1, tzinfo=UTC)


def prediction(minute: int, score: float, features: list[float | str | None]) -> Prediction:
    moment = START + timedelta(minutes=minute)
    return Prediction(id=uuid4(), entity="e", event_time=moment, served_at=moment, score=score, features=features)


rows = st.lists(
    st.builds(
        prediction,
        st.integers(0, 300),
        st.floats(0, 1),
        st.tuples(st.none() | st.floats(-10, 200), st.sampled_from([None, "a", "b", "other"])).map(list),
    ),
    max_size=40,
)


@given(rows)
def test_every_prediction_counts_once_for_each_feature_and_the_score(found: list[Prediction]) -> None:
    expected = Counter(
        (row.event_time.replace(minute=0), position, int(binning.indices([value])[0]))
        for row in found
        for position, binning, value in [
            (-1, PROFILE.score, row.score),
            (0, PROFILE.features[0], row.features[0]),
            (1, PROFILE.features[1], row.features[1]),
        ]
    )
    cells = count_cells(PROFILE, found)
    assert cells == dict(expected)
    assert list(cells) == sorted(cells)


@pytest.mark.parametrize("features", [[1.0], [1.0, "a", 2.0], ["heavy", "a"]])
def test_features_that_are_not_the_profiles_are_refused(features: list[float | str | None]) -> None:
    with pytest.raises(BadInput):
        count_cells(PROFILE, [prediction(0, 0.5, features)])
