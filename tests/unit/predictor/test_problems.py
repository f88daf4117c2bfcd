import pytest

from esteira.exceptions import BadInput
from predictor import problems
from predictor.dialects.open_inference import InferenceRequest
from predictor.problems import MAX_PROBLEMS, decode_rows


@pytest.mark.parametrize(("inputs", "more"), [(40, 4 * 40 - MAX_PROBLEMS), (1_000_000, problems._MAX_COUNTED)])
def test_what_is_wrong_with_the_form_is_named_and_counted_up_to_a_bound(inputs: int, more: int) -> None:
    body = b'{"inputs":[%b]}' % b",".join([b"{}"] * inputs)
    with pytest.raises(BadInput) as refused:
        decode_rows(body, InferenceRequest, lambda _: None)
    assert refused.value.problems[0].path == "inputs[0].name"
    assert (len(refused.value.problems), refused.value.more) == (MAX_PROBLEMS, more)
