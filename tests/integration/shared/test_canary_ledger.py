"""The ledger under canaries and rollbacks, and the pointer that follows it."""

import threading
from uuid import uuid4

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.database import migrations_folder
from esteira.exceptions import BadInput, Conflict, NotFound
from esteira.promotions import find_champion, find_standing, promote, rollback, write_pointer
from esteira.release import Pointer, pointer_path, release_path
from esteira.tables import outbox, promotions, releases


@pytest.fixture
def bucket(infrastructure: object, bucket_name: str, pubsub_project: str) -> Bucket:
    return Bucket(bucket_name, pubsub_project)


@pytest.fixture
def ledger(engine: Engine) -> Engine:
    row = {"pipeline": "shop", "training_run_id": uuid4(), "dataset_number": 1, "metrics": {}, "gates": []}
    with Session(engine) as session, session.begin():
        for version in ("1", "2", "3", "4"):
            paths = {"path": release_path("shop", version), "sha256": version * 64}
            session.execute(insert(releases).values(version=version, approved=True, **paths, **row))
    return engine


def promoted(
    engine: Engine, version: str, share: float = 1.0, expected: int | None = None, shadow: bool = False
) -> int:
    asked = {"reason": "test", "by": "test", "expected_generation": expected}
    with Session(engine) as session, session.begin():
        return promote(session, "shop", version, share=share, shadow=shadow, **asked)  # type: ignore[arg-type]


def rolled_back(engine: Engine, expected: int | None = None) -> tuple[int, str]:
    with Session(engine) as session, session.begin():
        return rollback(session, "shop", reason="test", by="test", expected_generation=expected)


def standing(engine: Engine) -> tuple[int, str | None, str | None]:
    with Session(engine) as session:
        found = find_standing(session, "shop")
        assert find_champion(session, "shop") == found.champion
    champion, challenger = found.champion, found.challenger
    versions = [release.version if release else None for release in (champion, challenger)]
    return found.generation, versions[0], versions[1]


def pointer(bucket: Bucket) -> Pointer:
    return msgspec.json.decode(bucket.read(pointer_path("shop")), type=Pointer)


def follow(engine: Engine, bucket: Bucket) -> bool:
    with Session(engine) as session:
        return write_pointer(session, bucket, "shop")


def test_a_canary_leaves_the_champion_and_every_step_is_a_row(ledger: Engine) -> None:
    assert standing(ledger) == (0, None, None)
    promoted(ledger, "1")
    assert promoted(ledger, "2", share=0.1) == 2
    assert standing(ledger) == (2, "1", "2")
    assert promoted(ledger, "2", share=0.5) == 3
    assert standing(ledger) == (3, "1", "2")
    assert promoted(ledger, "2") == 4
    assert standing(ledger) == (4, "2", None)
    with Session(ledger) as session:
        rows = session.execute(select(promotions.c.release_version, promotions.c.previous_version, promotions.c.share))
        assert [tuple(row) for row in rows] == [("1", None, 1), ("2", "1", 0.1), ("2", "1", 0.5), ("2", "1", 1)]
        told = [msgspec.json.decode(data) for data in session.scalars(select(outbox.c.data).order_by(outbox.c.id))]
    assert [(event["version"], event["share"], event["previous"]) for event in told] == [
        ("1", 1, None),
        ("2", 0.1, "1"),
        ("2", 0.5, "1"),
        ("2", 1, "1"),
    ]


def test_rolling_back_a_canary_keeps_the_champion_and_its_way_back(ledger: Engine) -> None:
    for version in ("1", "2"):
        promoted(ledger, version)
    promoted(ledger, "3", share=0.1)
    assert rolled_back(ledger) == (4, "2")
    assert standing(ledger) == (4, "2", None)
    assert rolled_back(ledger) == (5, "1")


def test_rolling_back_goes_back_one_champion_at_a_time(ledger: Engine) -> None:
    for version in ("1", "2", "3"):
        promoted(ledger, version)
    assert [rolled_back(ledger)[1] for _ in range(2)] == ["2", "1"]
    with pytest.raises(Conflict, match="no previous champion"):
        rolled_back(ledger)
    assert promoted(ledger, "4") == 6
    assert rolled_back(ledger) == (7, "1")


def test_what_makes_no_sense_is_refused(ledger: Engine) -> None:
    with pytest.raises(NotFound, match="no promotion yet"):
        rolled_back(ledger)
    with pytest.raises(Conflict, match="no champion to challenge"):
        promoted(ledger, "1", share=0.1)
    promoted(ledger, "1")
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(BadInput):
            promoted(ledger, "2", share=share)
    promoted(ledger, "2", share=0.1)
    for share in (1.0, 0.1):
        with pytest.raises(Conflict, match="the champion already"):
            promoted(ledger, "1", share=share)
    with pytest.raises(Conflict, match="promoted meanwhile"):
        rolled_back(ledger, expected=1)
    row = {"pipeline": "shop", "generation": 9, "release_version": "1", "reason": "r", "by": "b", "share": 0}
    with Session(ledger) as session, pytest.raises(IntegrityError, match="ck_promotions_share"):
        session.execute(insert(promotions).values(**row))


def test_of_a_promotion_and_a_rollback_at_once_one_wins(ledger: Engine) -> None:
    promoted(ledger, "1")
    promoted(ledger, "2", share=0.2)
    barrier, outcomes = threading.Barrier(2), []

    def race(act: object) -> None:
        with Session(ledger) as session:
            try:
                with session.begin():
                    find_standing(session, "shop")
                    barrier.wait(10)
                    outcomes.append(act(session))  # type: ignore[operator]
            except Conflict as error:
                outcomes.append(error)

    def raise_to_all(session: Session) -> int:
        return promote(session, "shop", "2", reason="r", by="b", expected_generation=2)

    def end(session: Session) -> int:
        return rollback(session, "shop", reason="r", by="b", expected_generation=2)[0]

    threads = [threading.Thread(target=race, args=(act,)) for act in (raise_to_all, end)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "int"]
    assert standing(ledger)[0] == 3


def test_the_pointer_carries_the_canary_and_lets_it_go(ledger: Engine, bucket: Bucket) -> None:
    promoted(ledger, "1")
    follow(ledger, bucket)
    assert pointer(bucket).challenger is None
    promoted(ledger, "2", share=0.25)
    assert [follow(ledger, bucket) for _ in range(2)] == [True, False]
    found = pointer(bucket)
    assert (found.generation, found.version, found.challenger and found.challenger.version) == (2, "1", "2")
    assert found.challenger is not None
    assert (found.challenger.share, found.challenger.sha256) == (0.25, "2" * 64)
    rolled_back(ledger)
    assert follow(ledger, bucket) is True
    assert (pointer(bucket).version, pointer(bucket).challenger) == ("1", None)


def test_a_shadow_is_a_row_that_leaves_the_champion_and_is_told(ledger: Engine, bucket: Bucket) -> None:
    promoted(ledger, "1")
    promoted(ledger, "2", share=0.25, shadow=True)
    assert standing(ledger) == (2, "1", "2")
    assert [follow(ledger, bucket) for _ in range(2)] == [True, False]
    found = pointer(bucket)
    assert (found.version, found.challenger, found.shadow and found.shadow.version) == ("1", None, "2")
    assert found.tried == found.shadow
    promoted(ledger, "2", share=0.25)
    assert follow(ledger, bucket) is True
    assert (pointer(bucket).shadow, pointer(bucket).challenger == found.shadow) == (None, True)
    promoted(ledger, "3", share=0.5, shadow=True)
    assert rolled_back(ledger) == (5, "1")
    with Session(ledger) as session:
        told = [msgspec.json.decode(data) for data in session.scalars(select(outbox.c.data).order_by(outbox.c.id))]
        assert [event["shadow"] for event in told] == [False, True, False, True, False]
        assert session.scalars(select(promotions.c.shadow).order_by(promotions.c.generation)).all() == [
            event["shadow"] for event in told
        ]


def test_a_shadow_is_never_a_champion(ledger: Engine) -> None:
    with pytest.raises(Conflict, match="no champion to challenge"):
        promoted(ledger, "1", share=0.1, shadow=True)
    promoted(ledger, "1")
    with pytest.raises(BadInput, match=r"below 1"):
        promoted(ledger, "2", shadow=True)
    row = {"pipeline": "shop", "generation": 9, "release_version": "1", "reason": "r", "by": "b", "share": 1}
    with Session(ledger) as session, pytest.raises(IntegrityError, match="ck_promotions_shadow"):
        session.execute(insert(promotions).values(**row, shadow=True))


def test_code_of_before_shadows_reads_the_pointer_and_never_answers_with_one(ledger: Engine, bucket: Bucket) -> None:
    """It passes over what it does not know, and finds no challenger."""

    class Before(msgspec.Struct):
        version: str
        challenger: dict[str, object] | None = None

    promoted(ledger, "1")
    promoted(ledger, "2", share=0.25, shadow=True)
    follow(ledger, bucket)
    read = msgspec.json.decode(bucket.read(pointer_path("shop")), type=Before)
    assert (read.version, read.challenger) == ("1", None)


def test_a_crash_between_ledger_and_pointer_is_repaired(ledger: Engine, bucket: Bucket) -> None:
    """The ledger committed and nobody wrote the pointer: any number of steps behind, one look mends it."""
    promoted(ledger, "1")
    follow(ledger, bucket)
    promoted(ledger, "2", share=0.25)
    promoted(ledger, "2")
    promoted(ledger, "3", share=0.5)
    assert pointer(bucket).generation == 1
    assert follow(ledger, bucket) is True
    found = pointer(bucket)
    assert (found.generation, found.version, found.challenger and found.challenger.version) == (4, "2", "3")


def test_taking_the_migration_back_leaves_champions_alone(ledger: Engine) -> None:
    promoted(ledger, "1")
    promoted(ledger, "2", share=0.25)
    promoted(ledger, "3", share=0.25, shadow=True)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with ledger.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert [row.release_version for row in connection.execute(text("SELECT * FROM promotions"))] == ["1"]
        command.upgrade(config, "head")
    assert standing(ledger) == (1, "1", None)


def test_a_pointer_of_before_canaries_is_read_and_kept(ledger: Engine, bucket: Bucket) -> None:
    promoted(ledger, "1")
    follow(ledger, bucket)
    found = bucket.read_versioned(pointer_path("shop"))
    assert found is not None
    old = {name: value for name, value in msgspec.json.decode(found[0]).items() if name != "challenger"}
    bucket.write_if(pointer_path("shop"), msgspec.json.encode(old), found[1])
    assert follow(ledger, bucket) is False
