"""What the environment tells this service."""

from typing import Literal

from esteira.settings import DatabaseSettings


class MonitorSettings(DatabaseSettings, frozen=True, kw_only=True):
    """The settings of the monitor; the fields of its bases are the environment that all services share."""

    mlflow_tracking_uri: str
    """The address of the MLflow server, http://host:port."""
    mlflow_tracking_auth: Literal["", "google-id-token"] = ""
    """`google-id-token` where MLflow is a Cloud Run service, which asks for one; read by MLflow's client too."""
    pool_size: int = 5
    """Connections to Postgres: one for each request at once, and one to spare."""
