import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.orm import Session

from esteira.database import make_engine, migrate
from esteira.exceptions import Unavailable
from esteira.tables import metadata, outbox

MADE_BY_SERVICES = ("features_", "predictions_")


def is_declared(name, kind, _):
    return kind != "table" or not name.startswith((*MADE_BY_SERVICES, "alembic_version"))


def test_migrations_make_the_tables_that_are_declared(engine):
    options = {"include_name": is_declared, "compare_server_default": True, "compare_type": True}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert set(metadata.tables) <= set(inspect(connection).get_table_names())


def test_migrations_at_once_wait_for_each_other(database_url):
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    failures: list[Exception] = []

    def run() -> None:
        try:
            migrate(database_url)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert failures == []


def test_a_prediction_of_any_day_has_a_partition(engine):
    statement = text(
        "INSERT INTO predictions (served_on, id, pipeline, model_version, event_time, served_at, score, features)"
        " VALUES (:day, gen_random_uuid(), 'p', 'v', now(), now(), 0.5, '[]') RETURNING tableoid::regclass::text"
    )
    with engine.begin() as connection:
        assert connection.scalar(statement, {"day": "1999-01-01"}) == "predictions_default"


def test_json_columns_take_what_postgres_would_refuse(engine):
    odd = {"nul": "a\0b", "escaped": "\\u0000", "backslash": "\\\0", "nan": float("nan"), "text": "é"}
    with Session(engine) as session, session.begin():
        session.execute(insert(outbox).values(topic="t", data="{}", attributes=odd))
        read = session.scalar(select(outbox.c.attributes))
    assert read == {"nul": "a�b", "escaped": "\\u0000", "backslash": "\\�", "nan": None, "text": "é"}


def test_no_postgres_is_unavailable():
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="Postgres"), engine.connect():
        pass


def test_a_connection_that_dies_is_unavailable_and_the_next_one_works(engine):
    with pytest.raises(Unavailable), engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_the_wheel_carries_the_migrations():
    project = Path(__file__).parents[3] / "shared" / "pyproject.toml"
    assert 'migrations = "esteira/migrations"' in project.read_text()
