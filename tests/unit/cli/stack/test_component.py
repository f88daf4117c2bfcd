import dataclasses

from esteira_cli.stack.component import Component

ETL = Component("etl", ("gunicorn", "etl"), ready=lambda: True, environ={"PORT": "1", "BUCKET": "b"})


def test_the_fingerprint_does_not_depend_on_the_order_of_the_environment() -> None:
    other = dataclasses.replace(ETL, environ={"BUCKET": "b", "PORT": "1"}, ready=lambda: False)
    assert other.fingerprint == ETL.fingerprint


def test_the_fingerprint_changes_with_command_and_environment() -> None:
    changed = [dataclasses.replace(ETL, environ={"PORT": "2", "BUCKET": "b"}), dataclasses.replace(ETL, argv=("x",))]
    assert ETL.fingerprint not in [component.fingerprint for component in changed]
