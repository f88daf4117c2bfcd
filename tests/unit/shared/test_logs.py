import json
import logging

import pytest

from esteira.logs import JsonFormatter, bind_context, current_trace, is_traceparent, new_trace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def rendered(formatter: JsonFormatter = JsonFormatter("etl", "project"), **extra: object) -> dict[str, object]:  # noqa: B008
    record = logging.getLogger("etl.handlers").makeRecord(
        "etl.handlers", logging.WARNING, __file__, 1, "row %s refused", (7,), None, extra=extra
    )
    line = formatter.format(record)
    assert "\n" not in line
    return json.loads(line)


def test_a_line_has_what_cloud_logging_looks_for():
    line = rendered(rows=3)
    assert (line["severity"], line["message"], line["logger"]) == ("WARNING", "row 7 refused", "etl.handlers")
    assert (line["service"], line["rows"]) == ("etl", 3)


def test_the_bound_trace_and_event_are_in_each_line_until_the_block_ends():
    with bind_context(TRACEPARENT, "event-1", pipeline="p"):
        line = rendered()
        assert line["logging.googleapis.com/trace"] == "projects/project/traces/0af7651916cd43dd8448eb211c80319c"
        assert (line["event_id"], line["pipeline"], current_trace()) == ("event-1", "p", TRACEPARENT)
    assert "event_id" not in rendered()
    assert current_trace() is None


def test_a_trace_is_a_bare_id_without_a_project():
    with bind_context(TRACEPARENT):
        line = rendered(JsonFormatter("etl"))
    assert line["logging.googleapis.com/trace"] == "0af7651916cd43dd8448eb211c80319c"


def test_an_exception_brings_its_stack():
    error = ValueError("broken")
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, error.__traceback__)})
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "failed"
    assert line["stack_trace"] == "ValueError: broken"


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800", {1: {2}}, 2**70, b"\xff", {("a", 1): 2}])
def test_no_value_costs_the_line(value):
    assert rendered(value=value)["message"] == "row 7 refused"


def test_arguments_that_do_not_fit_the_message_do_not_cost_the_line():
    record = logging.makeLogRecord({"msg": "%d rows", "args": ("many",)})
    assert "%d rows" in json.loads(JsonFormatter().format(record))["message"]


@pytest.mark.parametrize("text", [None, "", "x", "00-" + "0" * 32 + "-b7ad6b7169203331-01", TRACEPARENT + "\n"])
def test_malformed_traces_are_passed_over(text):
    assert not is_traceparent(text)
    with bind_context(text):
        assert current_trace() is None


def test_new_traces_are_well_formed_and_differ():
    assert is_traceparent(new_trace())
    assert new_trace() != new_trace()
