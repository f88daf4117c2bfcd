from typing import Any

import pytest

from esteira.exceptions import BadInput
from predictor import problems
from predictor.dialects.open_inference import InferenceRequest
from predictor.inference import PredictRequest
from predictor.problems import MAX_PROBLEMS, decode_rows


@pytest.mark.parametrize(("inputs", "more"), [(40, 4 * 40 - MAX_PROBLEMS), (1_000_000, problems._MAX_COUNTED)])
def test_what_is_wrong_with_the_form_is_named_and_counted_up_to_a_bound(inputs: int, more: int) -> None:
    body = b'{"inputs":[%b]}' % b",".join([b"{}"] * inputs)
    with pytest.raises(BadInput) as refused:
        decode_rows(body, InferenceRequest, lambda _: None)
    assert refused.value.problems[0].path == "inputs[0].name"
    assert (len(refused.value.problems), refused.value.more) == (MAX_PROBLEMS, more)


def test_values_are_not_gone_through_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, look = [], problems._wrong_value

    def look_once(kind: Any, value: Any, path: str) -> Any:
        looked.append(path)
        return look(kind, value, path)

    monkeypatch.setattr(problems, "_wrong_value", look_once)
    with pytest.raises(BadInput):
        decode_rows(b'{"rows":[%b],"explain":1}' % b",".join([b"1"] * 10_000), PredictRequest, lambda _: None)
    assert looked == ["rows", "rows", "rows", "explain"]
