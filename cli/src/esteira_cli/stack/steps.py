"""The steps that run once at each start: migrations, topics and subscriptions."""

from collections.abc import Mapping


def migrate(database_url: str) -> None:
    """Brings the services' database to the newest revision."""
    from esteira.database import migrate as migrate_database

    migrate_database(database_url)


def apply_topology(pubsub_host: str, project: str, endpoints: Mapping[str, str], service_account: str) -> None:
    """Creates topics and subscriptions, and points pushes at the services' present addresses."""
    import grpc
    from google.pubsub_v1.services.publisher import PublisherClient
    from google.pubsub_v1.services.publisher.transports.grpc import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports.grpc import SubscriberGrpcTransport

    from esteira import topology

    with grpc.insecure_channel(pubsub_host, options=[("grpc.enable_http_proxy", 0)]) as channel:
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        topology.apply(publisher, subscriber, project, endpoints, service_account)
