"""The steps that run once at each start: migrations, topics and subscriptions."""

from collections.abc import Mapping


def migrate(database_url: str) -> None:
    """Brings the services' database to the newest revision."""
    from esteira.database import migrate as migrate_database

    migrate_database(database_url)


def apply_topology(pubsub_host: str, project: str, endpoints: Mapping[str, str], service_account: str) -> None:
    """Creates topics and subscriptions, and points pushes at the services' present addresses."""
    from esteira import topology

    with topology.emulator_clients(pubsub_host) as (publisher, subscriber):
        topology.apply(publisher, subscriber, project, endpoints, service_account)
