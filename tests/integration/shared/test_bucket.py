import threading
from hashlib import sha256

import pytest

from esteira.bucket import Bucket
from esteira.exceptions import Conflict, NotFound, Unavailable


@pytest.fixture
def bucket(bucket_name: str, pubsub_project: str) -> Bucket:
    return Bucket(bucket_name, pubsub_project)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"small", bytes(range(256)) * 40_000], ids=["empty", "small", "10 MB"])
def test_reads_what_was_uploaded(bucket, tmp_path, data):
    bucket.upload_once("parts/x", data)
    assert bucket.read("parts/x", digest(data)) == data
    bucket.download("parts/x", tmp_path / "new" / "x", digest(data))
    assert (tmp_path / "new" / "x").read_bytes() == data


def test_uploads_a_file_without_reading_it_whole(bucket, tmp_path):
    (tmp_path / "file").write_bytes(b"content" * 1000)
    bucket.upload_once("parts/file", tmp_path / "file")
    bucket.upload_once("parts/file", tmp_path / "file")
    assert bucket.read("parts/file") == b"content" * 1000


def test_an_object_is_never_overwritten(bucket):
    bucket.upload_once("parts/once", b"first")
    bucket.upload_once("parts/once", b"first")
    with pytest.raises(Conflict, match="other bytes"):
        bucket.upload_once("parts/once", b"second")
    assert bucket.read("parts/once") == b"first"


def test_bytes_that_are_not_those_expected_are_refused(bucket, tmp_path):
    bucket.upload_once("parts/changed", b"changed")
    with pytest.raises(Conflict, match="sha256"):
        bucket.read("parts/changed", digest(b"expected"))
    with pytest.raises(Conflict, match="sha256"):
        bucket.download("parts/changed", tmp_path / "x", digest(b"expected"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_not_found(bucket, tmp_path):
    with pytest.raises(NotFound, match="parts/none"):
        bucket.read("parts/none")
    with pytest.raises(NotFound):
        bucket.download("parts/none", tmp_path / "x")
    with pytest.raises(NotFound):
        bucket.copy("parts/none", "parts/copy")
    assert bucket.read_versioned("parts/none") is None
    assert list(tmp_path.iterdir()) == []


def test_a_pointer_is_written_by_compare_and_set(bucket):
    first = bucket.write_if("serving/p.json", b"1", None)
    second = bucket.write_if("serving/p.json", b"2", first)
    assert bucket.read_versioned("serving/p.json") == (b"2", second)
    for stale in (None, first):
        with pytest.raises(Conflict):
            bucket.write_if("serving/p.json", b"3", stale)
    assert bucket.write_if("serving/p.json", b"2", first) == second, "a repeated write succeeds"


def test_one_of_many_writers_wins(bucket):
    barrier, won = threading.Barrier(6), []

    def race(number: int) -> None:
        barrier.wait()
        try:
            bucket.write_if("serving/race.json", b"%d" % number, None)
        except Conflict:
            return
        won.append(b"%d" % number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [bucket.read("serving/race.json")]


def test_lists_by_prefix(bucket):
    for name in ("listed/b", "listed/a", "listing"):
        bucket.upload_once(name, name.encode())
    found = bucket.list("listed/")
    assert [(each.path, each.size) for each in found] == [("listed/a", 8), ("listed/b", 8)]
    assert found[0].generation == bucket.read_versioned("listed/a")[1]


def test_copies_once(bucket):
    bucket.upload_once("copies/a", b"a")
    bucket.upload_once("copies/b", b"b")
    bucket.copy("copies/a", "copies/c")
    bucket.copy("copies/a", "copies/c")
    with pytest.raises(Conflict):
        bucket.copy("copies/b", "copies/c")
    assert bucket.read("copies/c") == b"a"


def test_no_answer_is_unavailable(bucket_name, pubsub_project):
    away = Bucket(bucket_name, pubsub_project, emulator="http://127.0.0.1:1", patience=1)
    for call in (lambda: away.read("x"), lambda: away.upload_once("x", b""), lambda: away.list("x")):
        with pytest.raises(Unavailable):
            call()
