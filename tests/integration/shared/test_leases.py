import threading
import time
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from esteira.exceptions import LeaseLost
from esteira.leases import Heartbeat, Lease, claim, extend, held, release
from esteira.tables import ingestions

DEADLINE = 15.0


@pytest.fixture
def key(engine) -> UUID:
    key = uuid4()
    row = {"id": key, "pipeline": "p", "bucket": "b", "object": str(key), "generation": 1}
    with engine.begin() as connection:
        connection.execute(insert(ingestions).values(row))
    return key


def take(engine, key: UUID, seconds: float = 60, *conditions) -> Lease | None:
    with Session(engine) as session, session.begin():
        return claim(session, ingestions, key, seconds, *conditions)


def expire(engine, key: UUID) -> None:
    with engine.begin() as connection:
        past = {"lease_until": text("clock_timestamp() - interval '1 second'")}
        connection.execute(update(ingestions).where(ingestions.c.id == key).values(past))


def wait_for(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_of_many_gets_the_row(engine, key):
    barrier, taken = threading.Barrier(8), []

    def race() -> None:
        barrier.wait()
        taken.append(take(engine, key))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (lease,) = [lease for lease in taken if lease is not None]
    assert (lease.fence, lease.attempts) == (1, 1)


def test_a_row_that_ran_out_is_claimed_again_and_its_former_owner_is_refused(engine, key):
    first = take(engine, key)
    assert take(engine, key) is None
    expire(engine, key)
    second = take(engine, key)
    assert (second.fence, second.attempts) == (2, 2)
    for write in (extend, held, release):
        with Session(engine) as session, session.begin(), pytest.raises(LeaseLost):
            write(session, first)
    assert first.lost
    with Session(engine) as session, session.begin():
        held(session, second)


def test_a_lease_that_ran_out_unclaimed_is_still_held(engine, key):
    lease = take(engine, key)
    expire(engine, key)
    with Session(engine) as session, session.begin():
        held(session, lease)
        extend(session, lease)
    assert take(engine, key) is None


def test_conditions_keep_finished_rows_from_being_claimed(engine, key):
    with engine.begin() as connection:
        connection.execute(update(ingestions).where(ingestions.c.id == key).values(status="done"))
    assert take(engine, key, 60, ingestions.c.status == "pending") is None
    assert take(engine, uuid4()) is None


def test_a_released_row_is_free_at_once(engine, key):
    lease = take(engine, key)
    with Session(engine) as session, session.begin():
        release(session, lease)
    assert take(engine, key).fence == 2


def test_no_one_claims_while_the_owner_writes_its_effect(engine, key):
    lease, second = take(engine, key), []
    expire(engine, key)
    with Session(engine) as session, session.begin():
        held(session, lease)
        rival = threading.Thread(target=lambda: second.append(take(engine, key)))
        rival.start()
        rival.join(0.3)
        assert rival.is_alive()
        session.execute(update(ingestions).where(lease.is_mine()).values(status="done"))
    rival.join(DEADLINE)
    assert second[0].fence == 2


def test_a_heartbeat_keeps_the_lease_beyond_its_seconds(engine, key):
    lease = take(engine, key, 0.6)
    with Session(engine) as session:
        first = session.scalar(select(ingestions.c.lease_until))
    with Heartbeat(engine, lease) as beating:
        wait_for(lambda: until(engine, key).timestamp() > first.timestamp() + 1.0)
        assert take(engine, key) is None
        assert not beating.lost


def test_a_heartbeat_says_when_the_lease_is_lost(engine, key):
    lease = take(engine, key, 0.6)
    with engine.begin() as connection:
        connection.execute(update(ingestions).where(ingestions.c.id == key).values(fence=7))
    with Heartbeat(engine, lease):
        wait_for(lambda: lease.lost)


def test_a_heartbeat_outlives_an_outage(engine, key, caplog):
    lease = take(engine, key, 0.6)
    with Heartbeat(engine, lease):
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE ingestions RENAME TO away"))
        wait_for(lambda: "lease not extended" in caplog.text)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO ingestions"))
        back = until(engine, key)
        wait_for(lambda: until(engine, key) > back)
    assert not lease.lost


def until(engine, key: UUID):
    with engine.connect() as connection:
        return connection.scalar(select(ingestions.c.lease_until).where(ingestions.c.id == key))
