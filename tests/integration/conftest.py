"""Real Postgres, bucket, Pub/Sub emulator and MLflow, one of each for a whole test session.

Tests are kept apart by names, not by servers: a database, a bucket and a Pub/Sub project for each test.
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from esteira.database import migrate
from esteira_cli.stack import Options, Stack
from esteira_cli.stack.bucket import create as create_bucket

TEMPLATE = "esteira_template"


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's stack."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def stack(stack_home: Path) -> Iterator[Stack]:
    """The session's stack, of which only Postgres runs until more is asked for; Google's clients find the rest."""
    pipelines = stack_home / "pipelines"
    pipelines.mkdir(exist_ok=True)
    stack = Stack(stack_home / "home", pipelines, Options(durable=False))
    try:
        stack.up(only={"postgres"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PUBSUB_EMULATOR_HOST", stack.addresses()["pubsub"])
            patch.setenv("STORAGE_EMULATOR_HOST", stack.addresses()["bucket"])
            yield stack
        _require_alive(stack, "postgres")
    finally:
        stack.down(wipe=True)


def _require_alive(stack: Stack, name: str) -> None:
    """Shows the last words of what died under the tests, before its log goes with its folder."""
    (found,) = [state for state in stack.state() if state.name == name]
    if found.state == "down":
        raise AssertionError(f"{name} died; its log ends with\n{stack.log(name).read_text('utf-8')[-5000:]}")


@pytest.fixture(scope="session")
def infrastructure(stack: Stack) -> Stack:
    """The stack with Postgres, bucket and Pub/Sub emulator running; no services, no MLflow."""
    stack.up(only={"postgres", "bucket", "pubsub"})
    return stack


@pytest.fixture(scope="session")
def bucket_server(stack: Stack) -> str:
    """The address of the bucket's server."""
    stack.up(only={"bucket"})
    return stack.addresses()["bucket"]


@pytest.fixture(scope="session")
def mlflow_server(stack: Stack, bucket_server: str) -> str:
    """The address of MLflow's tracking server, started when the first test asks for it."""
    stack.up(only={"mlflow"})
    return stack.addresses()["mlflow"]


@pytest.fixture(scope="session")
def database_template(stack: Stack) -> str:
    """The name of a migrated database that no test touches."""
    with _administer(stack) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(stack.blueprint().postgres.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database_url(stack: Stack, database_template: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own."""
    name = f"test_{uuid4().hex[:12]}"
    names = sql.Identifier(name), sql.Identifier(database_template)
    with _administer(stack) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    yield stack.blueprint().postgres.url(name)
    with _administer(stack) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def bucket_name(bucket_server: str) -> str:
    """The name of an empty bucket of the test's own."""
    name = f"bucket-{uuid4().hex[:12]}"
    create_bucket(bucket_server, "esteira-local", name)
    return name


@pytest.fixture
def pubsub_project() -> str:
    """The id of a Google Cloud project of the test's own, without topics."""
    return f"test-{uuid4().hex[:12]}"


def _administer(stack: Stack) -> "psycopg.Connection[tuple[object, ...]]":
    url = stack.blueprint().postgres.url("postgres").replace("+psycopg", "")
    return psycopg.connect(url, autocommit=True)
