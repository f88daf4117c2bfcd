"""What the environment tells this service."""

from esteira.settings import DatabaseSettings


class MonitorSettings(DatabaseSettings, frozen=True, kw_only=True):
    """The settings of the monitor; the fields of its bases are the environment that all services share."""

    mlflow_tracking_uri: str
    """The address of the MLflow server, http://host:port."""
    pool_size: int = 5
    """Connections to Postgres: one for each request at once, and one to spare."""
