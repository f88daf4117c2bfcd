"""The ledger leads, the pointer follows: whatever the pointer says."""

from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.orm import Session

from esteira.bucket import Bucket
from esteira.exceptions import Conflict, NotFound
from esteira.promotions import find_champion, promote, write_pointer
from esteira.release import Pointer, pointer_path, release_path
from esteira.tables import releases


@pytest.fixture
def bucket(infrastructure: object, bucket_name: str, pubsub_project: str) -> Bucket:
    return Bucket(bucket_name, pubsub_project)


@pytest.fixture
def released(engine: Engine) -> Engine:
    row = {"pipeline": "shop", "training_run_id": uuid4(), "dataset_number": 1, "metrics": {}, "gates": []}
    with Session(engine) as session, session.begin():
        for version in ("1", "2"):
            paths = {"path": release_path("shop", version), "sha256": version * 64}
            session.execute(insert(releases).values(version=version, approved=True, **paths, **row))
    return engine


def promoted(engine: Engine, version: str, expected: int | None = None) -> int:
    with Session(engine) as session, session.begin():
        return promote(session, "shop", version, reason="test", by="test", expected_generation=expected)


def follow(engine: Engine, bucket: Bucket) -> bool:
    with Session(engine) as session:
        return write_pointer(session, bucket, "shop")


def pointer(bucket: Bucket) -> tuple[int, str]:
    found = msgspec.json.decode(bucket.read(pointer_path("shop")), type=Pointer)
    return found.generation, found.version


def test_only_one_release_wins_over_the_champion_it_was_compared_with(released: Engine) -> None:
    assert promoted(released, "1", expected=0) == 1
    with pytest.raises(Conflict, match="promoted meanwhile"):
        promoted(released, "2", expected=0)
    with pytest.raises(NotFound, match="no release 3"):
        promoted(released, "3")
    with Session(released) as session:
        champion = find_champion(session, "shop")
    assert champion is not None
    assert (champion.generation, champion.version) == (1, "1")


def test_pointer_follows_each_promotion_once(released: Engine, bucket: Bucket) -> None:
    assert follow(released, bucket) is False
    promoted(released, "1")
    assert [follow(released, bucket) for _ in range(2)] == [True, False]
    promoted(released, "2")
    assert [follow(released, bucket) for _ in range(2)] == [True, False]
    assert pointer(bucket) == (2, "2")
    assert msgspec.json.decode(bucket.read(pointer_path("shop")), type=Pointer).reason == "test"


def test_pointer_of_before_that_says_no_reason_is_brought_up_to_date(released: Engine, bucket: Bucket) -> None:
    promoted(released, "1")
    follow(released, bucket)
    found = bucket.read_versioned(pointer_path("shop"))
    assert found is not None
    before = {name: value for name, value in msgspec.json.decode(found[0]).items() if name != "reason"}
    bucket.write_if(pointer_path("shop"), msgspec.json.encode(before), found[1])
    assert [follow(released, bucket) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("stray", [b"{", b"\xff", b'{"generation": 9}'])
def test_pointer_that_cannot_be_read_is_written_anew(released: Engine, bucket: Bucket, stray: bytes) -> None:
    promoted(released, "1")
    bucket.write_if(pointer_path("shop"), stray, None)
    assert follow(released, bucket) is True
    assert pointer(bucket) == (1, "1")


def test_pointer_ahead_of_a_restored_ledger_comes_back_to_it(released: Engine, bucket: Bucket) -> None:
    promoted(released, "1")
    follow(released, bucket)
    ahead = msgspec.json.decode(bucket.read(pointer_path("shop")), type=Pointer)
    found = bucket.read_versioned(pointer_path("shop"))
    assert found is not None
    ahead = msgspec.structs.replace(ahead, generation=5, version="2", sha256="2" * 64)
    bucket.write_if(pointer_path("shop"), msgspec.json.encode(ahead), found[1])
    assert follow(released, bucket) is True
    assert pointer(bucket) == (1, "1")
