"""The embedded stack: Postgres, bucket, Pub/Sub emulator, MLflow and the services, as processes of this machine."""

from esteira_cli.stack.stack import Options, Stack

__all__ = ["Options", "Stack"]
