"""The rights that an administrator gives once in Cloud SQL, tried out on a Postgres of our own."""

import re
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, make_url, text

from esteira.database import make_engine, migrate
from esteira.exceptions import Unavailable
from esteira_cli.stack import Stack
from pages import ROOT

SERVICES = ("etl", "trainer", "monitor")
RIGHTS = ROOT / "infra/cloud-sql/esteira.sql"
RIGHTS_OF_MLFLOW = ROOT / "infra/cloud-sql/mlflow.sql"


class Instance:
    """An empty database with the IAM users of a project, who may log in and nothing else.

    Its administrator is none of Postgres's superusers, as `postgres` in Cloud SQL is none: it may create roles and
    databases, and is a member of the role that owns the databases.
    """

    def __init__(self, admin_url: str) -> None:
        self.project = f"p{uuid4().hex[:8]}"
        self._server = admin_url
        self._owner, self._administrator = f"{self.project}_cloudsqlsuperuser", f"{self.project}_postgres"
        self._run_on("postgres", f'CREATE ROLE "{self._owner}" NOLOGIN')
        self._run_on(
            "postgres",
            f'CREATE ROLE "{self._administrator}" LOGIN CREATEROLE CREATEDB PASSWORD \'token\' IN ROLE "{self._owner}"',
        )
        self._run_on("postgres", f'CREATE DATABASE "{self.project}" OWNER "{self._owner}"')
        for service in (*SERVICES, "mlflow"):
            self._run_on("postgres", f"CREATE ROLE \"{self.user(service)}\" LOGIN PASSWORD 'token'")

    def user(self, service: str) -> str:
        return f"esteira-{service}@{self.project}.iam"

    def grant(self, statements: str) -> None:
        own = re.sub(r"DATABASE (esteira|mlflow)", f'DATABASE "{self.project}"', statements)
        own = own.replace("esteira_owner", f"{self.project}_owner")  # roles belong to the server, which is shared here
        self._run_on(self.project, own.replace("${PROJECT}", self.project), self._administrator)

    def url(self, service: str) -> str:
        address = make_url(self._server).set(username=self.user(service), password="token", database=self.project)
        return address.render_as_string(hide_password=False)

    def drop(self) -> None:
        self._run_on("postgres", f'DROP DATABASE "{self.project}" WITH (FORCE)')
        users = map(self.user, (*SERVICES, "mlflow"))
        for role in (*users, f"{self.project}_owner", self._administrator, self._owner):
            self._run_on("postgres", f'DROP ROLE IF EXISTS "{role}"')

    def _run_on(self, database: str, statements: str, user: str | None = None) -> None:
        address = make_url(self._server).set(database=database, drivername="postgresql")
        address = address.set(username=user, password="token") if user else address
        with psycopg.connect(address.render_as_string(False), autocommit=True) as connection:
            connection.execute(sql.SQL(statements))  # type: ignore[arg-type, unused-ignore]


@pytest.fixture
def bare(stack: Stack) -> Iterator[Instance]:
    """Where no right was given yet."""
    instance = Instance(stack.blueprint().postgres.url("postgres"))
    yield instance
    instance.drop()


@pytest.fixture
def instance(bare: Instance) -> Instance:
    """Where the services have their rights."""
    bare.grant(RIGHTS.read_text())
    return bare


def engine_of(instance: Instance, service: str) -> Engine:
    return make_engine(instance.url(service), pool_size=1)


def run(instance: Instance, service: str, statement: str) -> object:
    engine = engine_of(instance, service)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        found: object = result.scalar() if result.returns_rows else None
    engine.dispose()
    return found


def test_what_one_service_makes_the_others_read_and_change(instance: Instance) -> None:
    migrate(instance.url("etl"))
    assert run(instance, "trainer", "SELECT count(*) FROM promotions") == 0
    partition = (
        "CREATE TABLE predictions_2099 PARTITION OF predictions FOR VALUES FROM ('2099-01-01') TO ('2099-01-02')"
    )
    run(instance, "monitor", partition)
    run(instance, "etl", "CREATE TABLE features_parcels (entity text)")
    assert run(instance, "trainer", "SELECT count(*) FROM features_parcels") == 0
    assert run(instance, "monitor", "SHOW timezone") == "UTC"


def test_rights_may_be_given_again(instance: Instance) -> None:
    instance.grant(RIGHTS.read_text())


def test_mlflow_does_not_enter_the_database_of_the_services(instance: Instance) -> None:
    with pytest.raises(Unavailable, match="permission denied for database"):
        run(instance, "mlflow", "SELECT 1")


def test_mlflow_makes_its_tables_and_no_service_enters(bare: Instance) -> None:
    bare.grant(RIGHTS_OF_MLFLOW.read_text())
    run(bare, "mlflow", "CREATE TABLE runs (id integer)")
    with pytest.raises(Unavailable, match="permission denied for database"):
        run(bare, "etl", "SELECT 1")
