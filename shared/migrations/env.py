"""Runs the revisions on the connection that `esteira.database.migrate` hands over, or on the URL of `-x url=…`."""

from alembic import context
from sqlalchemy import Connection

from esteira.database import make_engine
from esteira.tables import metadata


def is_ours(name: str | None, kind: str, _: object) -> bool:
    """Leaves out what services create as they go: `features_<pipeline>` and the partitions of `predictions`."""
    return kind != "table" or not (name or "").startswith(("features_", "predictions_"))


def run(connection: Connection) -> None:
    """Runs inside the caller's transaction where there is one, in one of its own otherwise."""
    context.configure(
        connection=connection, target_metadata=metadata, include_name=is_ours, compare_server_default=True
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with make_engine(context.get_x_argument(as_dictionary=True)["url"]).connect() as own:
        run(own)
