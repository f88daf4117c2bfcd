import math
import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.utils.extmath import softmax

from esteira.exceptions import BadInput, ReleaseRefused
from esteira.schema import Feature
from esteira.scoring import Encoder, OnnxModel, digest, encode, inverse_link

NUMBER = Feature("distance", "numeric")
CARRIER = Feature("carrier", "categorical", ["AA", "B6", "UA"])


def test_numbers_keep_their_double_and_booleans_become_zero_and_one() -> None:
    matrix = encode([NUMBER], {"distance": [1, 2.5, True, False, Decimal("0.1"), np.int64(7), np.float32(0.5)]})
    assert matrix[:, 0].tolist() == [1.0, 2.5, 1.0, 0.0, 0.1, 7.0, 0.5]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_what_no_double_measures_is_missing(value: object) -> None:
    assert math.isnan(encode([NUMBER], {"distance": [value]})[0, 0])
    assert encode([NUMBER], {"distance": [value, 1.0]})[1, 0] == 1.0


def test_integers_beyond_two_to_the_53_are_rounded_to_even() -> None:
    assert encode([NUMBER], {"distance": [2**53 + 1, 2**53 + 3]})[:, 0].tolist() == [float(2**53), float(2**53 + 4)]


def test_a_category_becomes_its_index_and_an_unseen_one_is_missing() -> None:
    matrix = encode([CARRIER], {"carrier": ["UA", "AA", "ZZ", "", None, math.nan]})
    assert matrix[:2, 0].tolist() == [2.0, 0.0]
    assert np.isnan(matrix[2:, 0]).all()


def test_arrays_encode_as_lists_do() -> None:
    numbers, names = [1.5, None, 3.0], ["UA", None, "B6"]
    plain = encode([NUMBER, CARRIER], {"distance": numbers, "carrier": names})
    masked = np.ma.MaskedArray([1.5, 9.0, 3.0], mask=[False, True, False])
    arrays = {"distance": masked, "carrier": np.array(names, dtype=object)}
    assert encode([NUMBER, CARRIER], arrays).tobytes() == plain.tobytes()


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float32, np.bool_])
def test_typed_arrays_of_numbers_are_widened(dtype: type) -> None:
    assert encode([NUMBER], {"distance": np.array([1, 0], dtype=dtype)})[:, 0].tolist() == [1.0, 0.0]


def test_the_matrix_is_row_major_and_follows_the_order_of_the_features() -> None:
    matrix = encode([CARRIER, NUMBER], {"distance": [5.0, 6.0], "carrier": ["AA", "UA"], "other": [1, 2]})
    assert matrix.tolist() == [[0.0, 5.0], [2.0, 6.0]]
    assert matrix.flags.c_contiguous


@pytest.mark.parametrize(
    "columns, path",
    [
        ({"distance": [1.0, "2"], "carrier": ["AA", "AA"]}, "rows[1].distance"),
        ({"distance": [1.0, np.datetime64("2013-01-01")], "carrier": ["AA", "AA"]}, "rows[1].distance"),
        ({"distance": [1.0], "carrier": [3]}, "rows[0].carrier"),
        ({"distance": [1.0]}, "carrier"),
        ({"distance": [1.0], "carrier": ["AA", "AA"]}, "carrier"),
    ],
)
def test_a_wrong_column_is_refused_by_its_name(columns: dict[str, list[object]], path: str) -> None:
    with pytest.raises(BadInput) as refusal:
        encode([NUMBER, CARRIER], columns)
    assert [problem.path for problem in refusal.value.problems] == [path]


@given(st.lists(st.tuples(st.floats() | st.none(), st.none() | st.sampled_from(["AA", "B6", "UA", "??"])), min_size=1))
def test_rows_encode_alike_alone_and_together(rows: list[tuple[float | None, str | None]]) -> None:
    encoder = Encoder([NUMBER, CARRIER])
    numbers, names = (list(column) for column in zip(*rows, strict=True))
    together = encoder.encode({"distance": numbers, "carrier": names})
    alone = [encoder.encode({"distance": [number], "carrier": [name]}) for number, name in rows]
    assert np.concatenate(alone).tobytes() == together.tobytes()
    assert not np.isinf(together).any()


def test_the_digest_depends_on_order_kind_and_categories() -> None:
    variants = [
        [NUMBER, CARRIER],
        [CARRIER, NUMBER],
        [NUMBER, Feature("carrier", "categorical", ["AA", "UA", "B6"])],
        [NUMBER, Feature("carrier", "numeric", ["AA", "B6", "UA"])],
    ]
    assert len(set(map(digest, variants))) == len(variants)


def _sums() -> np.ndarray:
    generator = np.random.default_rng(3)
    bits = generator.integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64)
    edges = [0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308, np.inf, -np.inf, -709.782712893384, -709.7827128933841, -745.2]
    return np.concatenate(
        [generator.normal(0, 3, 100_000), generator.uniform(-800, 800, 100_000), bits[~np.isnan(bits)], edges]
    )


def test_the_logistic_link_has_the_bits_of_scipy() -> None:
    sums = _sums()
    assert np.array_equal(inverse_link("logit", sums[:, None]).view(np.int64), expit(sums).view(np.int64))


def test_the_logistic_link_has_the_bits_of_scipy_where_nothing_overflows() -> None:
    sums = _sums()
    sums = sums[sums > -700]
    assert np.array_equal(inverse_link("logit", sums[:, None]).view(np.int64), expit(sums).view(np.int64))


@pytest.mark.parametrize("classes", [3, 8, 9, 40])
@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_softmax_has_the_bits_of_scikit_learn_on_its_own_layout(rows: int, classes: int) -> None:
    raw = np.random.default_rng(rows).normal(0, 5, (rows, classes))
    expected = np.ascontiguousarray(softmax(np.asfortranarray(raw)))
    assert np.ascontiguousarray(inverse_link("softmax", raw)).tobytes() == expected.tobytes()


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ReleaseRefused, match="cannot load the model"):
        OnnxModel(b"not a model", "binary", [NUMBER])


def test_telemetry_of_onnx_runtime_is_off() -> None:
    script = (
        "import os, esteira.scoring as scoring\n"
        "try:\n    scoring._load(b'')\n"
        "except scoring.ReleaseRefused:\n    print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    assert subprocess.check_output([sys.executable, "-c", script], env=clean, text=True).strip() == "1"
