from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from esteira.database import make_engine, migrate


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrate(database_url)
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()
