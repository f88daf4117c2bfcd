import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from esteira.metrics import midranks, roc_auc


@given(st.lists(st.integers(0, 9), min_size=1))
def test_midranks_are_scipys(values: list[int]) -> None:
    numbers = np.array(values, dtype=float)
    assert midranks(numbers).tolist() == scipy.stats.rankdata(numbers).tolist()


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2).filter(
        lambda rows: len({r[0] for r in rows}) == 2
    )
)
def test_roc_auc_is_that_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    labels, scores = zip(*rows, strict=True)
    found = roc_auc([float(label) for label in labels], [float(score) for score in scores])
    assert found is not None
    assert abs(found - roc_auc_score(labels, scores)) < 1e-12


def test_roc_auc_of_like_labels_is_none() -> None:
    assert roc_auc([1.0, 1.0], [0.2, 0.4]) is None
