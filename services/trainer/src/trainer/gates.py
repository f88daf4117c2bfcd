"""What a challenger must show before it is released; each gate with its figure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from esteira.dataset import Manifest
from esteira.pipeline import Gates
from esteira.release import Gate
from esteira.scoring import Array
from esteira.statement import FeatureColumn
from trainer.compare import Difference, SliceDifference
from trainer.evaluate import MAIN_METRIC, Task, has_contrast, roc_auc
from trainer.export import EXPLANATION_TOLERANCE, Additivity, Parity
from trainer.fit import Matrices

MAX_SINGLE_FEATURE: Final = 0.99
"""A feature that alone tells the label this well most likely holds it."""
MAX_RELEASE_BYTES: Final = 200_000_000
MAX_ROW_MILLISECONDS: Final = 50.0


def rows_gate(labelled: int, needed: int) -> Gate:
    """Enough labelled rows to fit and to measure on."""
    return Gate(name="rows", value=labelled, threshold=needed, passed=labelled >= needed, detail="labelled rows")


def split_gates(train: Array, test: Array) -> list[Gate]:
    """Rows to learn from, and held-out rows to measure on, whose labels differ."""
    return [_contrast_gate("training rows", train), _contrast_gate("held-out rows", test)]


def _contrast_gate(name: str, label: Array) -> Gate:
    passed = has_contrast(label)
    detail = "" if passed else "rows whose labels do not differ: upload more data"
    return Gate(name=name, value=len(label), threshold=2, passed=passed, detail=detail)


def schema_gate(manifest: Manifest, features: Sequence[FeatureColumn]) -> Gate:
    """The dataset has the very features that features.sql yields now."""
    found, wanted = set(manifest.features), set(features)
    differ = sorted({feature.name for feature in found ^ wanted})
    detail = f"the dataset differs from features.sql in {', '.join(differ)}; upload data again" if differ else ""
    return Gate(name="schema", value=len(differ), threshold=0, passed=not differ, detail=detail)


def leakage_gate(task: Task, matrices: Matrices) -> Gate:
    """No feature tells the label by itself; a category stands for the mean label that training rows have there."""
    known = {}
    for index, feature in enumerate(matrices.features):
        values = matrices.test[:, index]
        if feature.kind == "categorical":
            values = _category_means(matrices.train[:, index], matrices.train_label, values)
        known[feature.name] = tells(task, values, matrices.test_label)
    name, most = max(known.items(), key=lambda item: item[1])
    return Gate(
        name="leakage", value=most, threshold=MAX_SINGLE_FEATURE, passed=most <= MAX_SINGLE_FEATURE, detail=name
    )


def tells(task: Task, values: Array, label: Array) -> float:
    """How well one feature tells the label: AUC in its better direction, or squared correlation; missing is lowest."""
    present = values[np.isfinite(values)]
    if not has_contrast(label) or not present.size:
        return 0.0
    filled = np.where(np.isfinite(values), values, present.min() - max(1.0, float(np.ptp(present))))
    if task == "classification":
        area = roc_auc(label, filled)
        return max(area, 1.0 - area)
    if not has_contrast(filled):
        return 0.0
    return float(np.corrcoef(filled, label)[0, 1] ** 2)


def _category_means(codes: Array, label: Array, wanted: Array) -> Array:
    """The mean of `label` by code, for the codes in `wanted`; codes that were not seen get the overall mean."""
    index, asked = _positions(codes), _positions(wanted)
    length = int(max(index.max(initial=0), asked.max(initial=0))) + 1
    counts, sums = np.bincount(index, minlength=length), np.bincount(index, weights=label, minlength=length)
    means: Array = np.where(counts > 0, sums / np.maximum(counts, 1), label.mean())[asked]
    return means


def _positions(codes: Array) -> npt.NDArray[np.int64]:
    return np.where(np.isfinite(codes), codes, -1).astype(np.int64) + 1


def baseline_gate(task: Task, metrics: Mapping[str, float], gates: Gates) -> Gate:
    """Better than no model: AUC 0.5, or the mean."""
    gain = metrics[MAIN_METRIC[task]] - (0.5 if task == "classification" else 0.0)
    least = gates.min_gain_over_baseline
    return Gate(name="baseline", value=gain, threshold=least, passed=gain >= least, detail=MAIN_METRIC[task])


def champion_gate(version: str, difference: Difference, gates: Gates) -> Gate:
    """Not worse than the champion: the lower end of the interval stays above the loss that is allowed."""
    least = -gates.max_loss_to_champion
    detail = (
        f"challenger minus champion {version} is {difference.value:+.5f} [{difference.low:+.5f}, "
        f"{difference.high:+.5f}] on {difference.rows} held-out rows"
    )
    return Gate(name="champion", value=difference.low, threshold=least, passed=difference.low >= least, detail=detail)


def no_champion_gate() -> Gate:
    """There is none to compare with."""
    return Gate(name="champion", value=None, threshold=None, passed=True, detail="there is no champion yet")


def incomparable_gate(version: str, reason: str) -> Gate:
    """The champion cannot score the rows: a person must decide."""
    detail = f"champion {version} cannot score these rows: {reason}; promote by hand"
    return Gate(name="champion", value=None, threshold=None, passed=True, detail=detail)


def slices_gates(slices: Iterable[SliceDifference], features: Sequence[str], gates: Gates) -> list[Gate]:
    """In no slice surely worse than the champion by more than is allowed; one gate for each declared feature."""
    found = list(slices)
    return [_slice_gate(name, [s for s in found if s.feature == name], gates) for name in features]


def _slice_gate(feature: str, slices: Sequence[SliceDifference], gates: Gates) -> Gate:
    least = -gates.max_slice_loss
    if not slices:
        return Gate(
            name=f"slice {feature}", value=None, threshold=least, passed=True, detail="no slice has enough rows"
        )
    worst = min(slices, key=lambda s: s.difference.high)
    detail = f"worst of {len(slices)}: {worst.value} with {worst.difference.value:+.5f}, upper bound compared"
    high = worst.difference.high
    return Gate(name=f"slice {feature}", value=high, threshold=least, passed=high >= least, detail=detail)


def calibration_gate(metrics: Mapping[str, float], gates: Gates) -> Gate:
    """Probabilities mean what they say."""
    error = metrics["ece"]
    most = gates.max_calibration_error
    return Gate(name="calibration", value=error, threshold=most, passed=error <= most, detail="ece")


def parity_gate(parity: Parity) -> Gate:
    """The exported model answers as scikit-learn does."""
    how = "bit-equal" if parity.bit_equal else f"within {parity.tolerance:g} of the terms"
    detail = f"{parity.rows} rows, {how}, {parity.decisions_changed} decisions changed"
    return Gate(
        name="parity", value=parity.max_abs_difference, threshold=parity.tolerance, passed=parity.passed, detail=detail
    )


def unexportable_gate(reason: str) -> Gate:
    """The model has no exact form that can be served."""
    return Gate(name="parity", value=None, threshold=None, passed=False, detail=reason)


def trees_gate(parity: Parity) -> Gate:
    """Native code sums the trees as scikit-learn does."""
    detail = f"{parity.rows} rows, bit-equal"
    return Gate(name="trees", value=parity.max_abs_difference, threshold=0.0, passed=parity.passed, detail=detail)


def unsummed_gate(reason: str) -> Gate:
    """ONNX Runtime serves the release, slower."""
    return Gate(name="trees", value=None, threshold=None, passed=True, detail=f"left out: {reason}")


def explanation_gate(additivity: Additivity) -> Gate:
    """Explanations sum to the scores that they explain."""
    detail = f"{additivity.rows} rows, base and contributions beside raw scores"
    return Gate(
        name="explanation",
        value=additivity.max_difference,
        threshold=EXPLANATION_TOLERANCE,
        passed=additivity.passed,
        detail=detail,
    )


def unexplained_gate(reason: str) -> Gate:
    """The release serves without explanations."""
    return Gate(name="explanation", value=None, threshold=None, passed=True, detail=f"left out: {reason}")


def size_gate(size: int) -> Gate:
    """Small enough to be loaded at every start of a predictor."""
    return Gate(name="size", value=size, threshold=MAX_RELEASE_BYTES, passed=size <= MAX_RELEASE_BYTES, detail="bytes")


def latency_gate(milliseconds: float) -> Gate:
    """Quick enough: one raw row to its score."""
    passed = milliseconds <= MAX_ROW_MILLISECONDS
    detail = "median milliseconds for one row"
    return Gate(name="latency", value=milliseconds, threshold=MAX_ROW_MILLISECONDS, passed=passed, detail=detail)


def smoke_gate(detail: str, *, passed: bool) -> Gate:
    """The release loads and answers its example rows as scikit-learn did."""
    return Gate(name="smoke", value=None, threshold=None, passed=passed, detail=detail)


def failures(gates: Iterable[Gate]) -> list[Gate]:
    """Those that did not pass."""
    return [gate for gate in gates if not gate.passed]


def verdict(gates: Iterable[Gate]) -> str:
    """Names what failed, with figures; or says that all passed."""
    failed = failures(gates)
    if not failed:
        return "passed every gate"
    return "; ".join(f"{gate.name}: {_figure(gate)} {gate.detail}".strip() for gate in failed)


def _figure(gate: Gate) -> str:
    return "" if gate.value is None else f"{gate.value:.6g} against {gate.threshold:.6g}"


def as_table(gates: Sequence[Gate]) -> dict[str, list[object]]:
    """The gates by column, as MLflow shows tables."""
    rows = [msgspec.structs.asdict(gate) for gate in gates]
    return {name: [row[name] for row in rows] for name in Gate.__struct_fields__}
