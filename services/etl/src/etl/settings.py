"""What etl is told by its environment."""

from esteira.settings import DatabaseSettings


class EtlSettings(DatabaseSettings, frozen=True, kw_only=True):
    """Settings of etl."""

    lease_seconds: float = 60.0
    """How long a file belongs to a worker that gives no sign of life."""
    max_file_bytes: int = 64 << 20
    """The largest file that is taken, uncompressed; working on it takes some thirty times its size in memory."""
    pool_size: int = 8
    """Connections to Postgres: two for each file that is ingested at once, for work and heartbeat."""
