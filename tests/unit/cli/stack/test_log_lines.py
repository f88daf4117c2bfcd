from esteira_cli.stack.log_lines import readable

TRACE = r"Traceback\n  one\n  two\n  three\n  four\nValueError: no"


def test_a_json_line_becomes_severity_message_and_the_end_of_its_trace() -> None:
    line = f'{{"severity": "ERROR", "message": "failed", "stack_trace": "{TRACE}", "service": "etl"}}'
    assert readable([line]) == ["ERROR failed", "  two", "  three", "  four", "ValueError: no"]


def test_other_lines_stay_as_they_are() -> None:
    lines = ["FATAL:  could not bind", "{not json", "[1, 2]", '{"no": "message"}', ""]
    assert readable(lines) == lines
