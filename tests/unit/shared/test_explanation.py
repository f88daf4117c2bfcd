import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esteira.attribution import LinearMethod, TreeMethod, quadrature
from esteira.exceptions import ReleaseRefused
from esteira.explanation import Explainer, Explanation, to_bytes
from esteira.schema import Feature
from esteira.scoring import digest

FEATURES = [Feature("price", "numeric"), Feature("town", "categorical", ["Oslo", "Paris", "Rome"])]
LINEAR = LinearMethod(
    base=np.array(1.5),
    ceiling=np.array(1e100),
    number_feature=np.array([0], np.int32),
    center=np.array([10.0]),
    scale=np.array([2.0]),
    missing=np.array([0.5]),
    coefficient=np.array([3.0]),
    code_feature=np.array([1], np.int32),
    code_terms=np.array([[7.0, 1.0, 2.0, 4.0]]),
    mean=np.array([0.25, 2.0]),
)
TREES = TreeMethod(
    base=np.array(0.25 * 8 + 0.75 * (0.5 * 4 + 0.5 * 2)),
    number_feature=np.array([0, 0], np.int32),
    low=np.array([-np.inf, 5.0]),
    high=np.array([5.0, np.inf]),
    missing=np.array([False, True]),
    code_feature=np.array([1, 1], np.int32),
    members=np.array([[False, True, False, True], [True, False, True, False]]),
    leaf_value=np.array([8.0, 4.0, 2.0]),
    leaf_size=np.array([1, 2, 2], np.int32),
    entry_condition=np.array([0, 1, 2, 1, 3], np.int32),
    entry_share=np.array([0.25, 0.75, 0.5, 0.75, 0.5]),
)
"""Is the price at most 5? Then 8; else is the town Oslo or Rome? Then 4, else 2."""


def _explain(method: LinearMethod | TreeMethod, *row: float) -> list[float]:
    base, contributions = Explainer(to_bytes(method, FEATURES), FEATURES).explain(np.array([row]))
    assert base == float(method.base)
    values: list[float] = contributions[0].tolist()
    return values


@pytest.mark.parametrize(
    "price, town, expected",
    [
        (14.0, 2.0, [3 * 2 - 0.25, 4 - 2.0]),
        (np.nan, 0.0, [3 * 0.5 - 0.25, 1 - 2.0]),
        (10.0, np.nan, [-0.25, 7 - 2.0]),
        (10.0, 9.0, [-0.25, 7 - 2.0]),
        (1e200, 1.0, [3e100, 0.0]),
    ],
)
def test_a_linear_model_contributes_its_terms_less_their_mean(price: float, town: float, expected: list[float]) -> None:
    assert _explain(LINEAR, price, town) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "price, town, score, with_price, with_town",
    [
        (5.0, 0.0, 8.0, 8.0, 0.25 * 8 + 0.75 * 4),
        (5.1, 0.0, 4.0, 3.0, 0.25 * 8 + 0.75 * 4),
        (np.nan, 1.0, 2.0, 3.0, 0.25 * 8 + 0.75 * 2),
        (-np.inf, np.nan, 8.0, 8.0, 0.25 * 8 + 0.75 * 2),
        (np.inf, 77.0, 2.0, 3.0, 0.25 * 8 + 0.75 * 2),
    ],
)
def test_a_tree_contributes_by_hand_s_arithmetic(
    price: float, town: float, score: float, with_price: float, with_town: float
) -> None:
    none = float(TREES.base)
    first, second = _explain(TREES, price, town)
    assert first == pytest.approx(((with_price - none) + (score - with_town)) / 2, abs=1e-14)
    assert second == pytest.approx(((with_town - none) + (score - with_price)) / 2, abs=1e-14)


def test_rows_are_explained_by_the_names_of_their_features() -> None:
    explainer = Explainer(to_bytes(LINEAR, FEATURES), FEATURES)
    assert explainer.explain_rows(np.array([[10.0, 1.0]])) == [Explanation(1.5, {"price": -0.25, "town": 0.0})]
    assert explainer.explain_rows(np.empty((0, 2))) == []


@given(st.integers(1, 60), st.data())
def test_the_quadrature_is_exact_for_every_weight_of_a_shapley_value(features: int, data: st.DataObject) -> None:
    """The weight of a subset of s others is the beta integral of t**s (1 - t)**(features - 1 - s)."""
    size = data.draw(st.integers(0, features - 1))
    points, weights = quadrature(features)
    found = float(weights @ (points**size * (1 - points) ** (features - 1 - size)))
    binomial = 1
    for step in range(size):
        binomial = binomial * (features - 1 - step) // (step + 1)
    assert found == pytest.approx(1 / (features * binomial), rel=1e-9)


def _file(held: LinearMethod | TreeMethod, /, **changes: Any) -> bytes:
    name = "trees" if isinstance(held, TreeMethod) else "linear"
    arrays = {field: getattr(held, field) for field in held.ARRAYS}
    content = {"format": "1", "method": name, "features": digest(FEATURES), **arrays, **changes}
    buffer = io.BytesIO()
    np.savez(buffer, **{field: value for field, value in content.items() if value is not None})
    return buffer.getvalue()


def test_a_file_written_by_hand_loads() -> None:
    Explainer(_file(TREES), FEATURES)
    Explainer(_file(LINEAR), FEATURES)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "cannot be read"),
        (b"no archive", "cannot be read"),
        (to_bytes(TREES, FEATURES)[:-30], "cannot be read"),
        (to_bytes(TREES, FEATURES)[:200] + b"\0" * 40 + to_bytes(TREES, FEATURES)[240:], "cannot be read"),
        (_file(TREES, base=np.array({"a": 1}, dtype=object)), "cannot be read"),
        (_file(TREES, format="2"), "format is '2'"),
        (_file(TREES, features=digest(FEATURES[:1])), "features is"),
        (_file(TREES, method="forest"), "method is 'forest'"),
        (_file(TREES, method=None), "method is 'None'"),
        (_file(TREES, method="linear"), "are not what LinearMethod needs"),
        (_file(TREES, low=None), r"\['low'\]"),
        (_file(TREES, more=np.zeros(3)), r"\['more'\]"),
        (_file(TREES, leaf_value=np.array([[8.0, 4.0, 2.0]])), r"\['leaf_value'\]"),
        (_file(TREES, leaf_size=np.array([1, 2, 2])), r"\['leaf_size'\]"),
        (_file(TREES, leaf_value=np.array([8.0, np.nan, 2.0])), "leaf_value holds"),
        (_file(TREES, leaf_value=np.array([8.0, np.inf, 2.0])), "leaf_value holds"),
        (_file(TREES, low=np.array([np.nan, 5.0])), "low holds"),
        (_file(TREES, leaf_size=np.array([2, 1, 2], np.int32)), "do not fit"),
        (_file(TREES, leaf_size=np.array([1, 2, 3], np.int32)), "do not fit"),
        (_file(TREES, leaf_size=np.array([-1, 3, 3], np.int32)), "do not fit"),
        (_file(TREES, leaf_value=np.array([8.0, 4.0])), "do not fit"),
        (_file(TREES, number_feature=np.array([0, 2], np.int32)), "do not fit"),
        (_file(TREES, code_feature=np.array([-1, 1], np.int32)), "do not fit"),
        (_file(TREES, entry_condition=np.array([0, 1, 2, 1, 4], np.int32)), "do not fit"),
        (_file(TREES, entry_share=np.array([0.25, 0.75, 0.0, 0.75, 0.5])), "do not fit"),
        (_file(TREES, entry_share=np.array([0.25, 0.75, 1.5, 0.75, 0.5])), "do not fit"),
        (_file(TREES, members=np.zeros((2, 0), np.bool_)), "do not fit"),
        (_file(LINEAR, mean=np.zeros(3)), "do not fit"),
        (_file(LINEAR, scale=np.zeros(1)), "do not fit"),
        (_file(LINEAR, center=np.zeros(2)), "do not fit"),
        (_file(LINEAR, code_feature=np.array([1, 1], np.int32)), "do not fit"),
        (_file(LINEAR, number_feature=np.array([2], np.int32)), "do not fit"),
    ],
)
def test_a_damaged_or_odd_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseRefused, match=message):
        Explainer(data, FEATURES)


@given(st.data())
def test_any_byte_may_be_damaged_and_the_file_is_loaded_or_refused(data: st.DataObject) -> None:
    whole = bytearray(to_bytes(TREES, FEATURES))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ReleaseRefused):
        Explainer(bytes(whole), FEATURES)
