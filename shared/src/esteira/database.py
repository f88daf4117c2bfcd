"""Postgres: engines, and the migrations that bring a database up to `esteira.tables`.

The boundary of a transaction is `with Session(engine) as session, session.begin():`. An outage of Postgres, a
deadlock and a cancelled statement reach the caller as `Unavailable`; broken constraints stay `IntegrityError`.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InterfaceError, OperationalError

from esteira.cloud_sql import log_in_with_tokens, needs_token
from esteira.exceptions import SettingsInvalid, Unavailable
from esteira.logs import configure_logging

logger = logging.getLogger(__name__)

MIGRATION_LOCK = 0x65737465697261  # "esteira": one migration of a database at a time
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def make_engine(url: str, pool_size: int = 5) -> Engine:
    """Opens a pool of at most `pool_size` connections, made when first used, in UTC.

    Cloud SQL allows some 100 connections for an instance: `pool_size` times instances must stay below.
    JSON columns take what `msgspec` encodes; NaN becomes null and the NUL character, which `jsonb` refuses, U+FFFD.
    A URL without a password to the socket of a Cloud SQL instance logs in by IAM: see `esteira.cloud_sql`.
    """
    engine = create_engine(
        _with_driver(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        pool_pre_ping=True,
        pool_recycle=1800,
        json_serializer=encode_json,
        json_deserializer=msgspec.json.decode,
        connect_args={
            "connect_timeout": 5,
            "options": "-c timezone=UTC",
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )
    event.listen(engine, "handle_error", _translate, retval=True)
    if needs_token(engine.url):
        log_in_with_tokens(engine)
    return engine


def encode_json(value: Any) -> str:
    """Encodes a value as `jsonb` takes it."""
    return _NUL.sub(r"\1\\ufffd", msgspec.json.encode(value, enc_hook=str).decode())


def migrate(url: str) -> None:
    """Brings the database to the newest revision, in one transaction; two at once wait for each other."""
    engine = make_engine(url, pool_size=1)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
    logger.info("database migrated")


def migrations_folder() -> Path:
    """Where the revisions are: inside the installed package, or beside `src` in the workspace."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "migrations", here.parents[2] / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise SettingsInvalid(f"no migrations beside {here}: install esteira-shared from its wheel or its workspace")


def main(environ: Mapping[str, str]) -> None:
    """The job before a deploy: `python -m esteira.database` migrates the database of `DATABASE_URL`."""
    configure_logging("migrations", project=environ.get("GOOGLE_CLOUD_PROJECT"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as a container's first process it would not hear it
    if not environ.get("DATABASE_URL"):
        raise SettingsInvalid("DATABASE_URL is not set: the URL of the Postgres database to migrate")
    migrate(environ["DATABASE_URL"])


def _with_driver(url: str) -> str:
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


def _translate(context: ExceptionContext) -> Unavailable | None:
    error = context.sqlalchemy_exception
    if context.is_disconnect or isinstance(error, OperationalError | InterfaceError):
        return Unavailable(f"Postgres: {str(context.original_exception).strip()}")
    return None


if __name__ == "__main__":
    main(os.environ)
