import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from esteira.exceptions import Unavailable
from predictor.hints import LOOK, VERIFY, Ear, Mouth


@pytest.fixture
def folder(tmp_path: Path, socket_enabled: None) -> Path:
    deep = tmp_path / ("x" * 100) / ("y" * 100)  # longer than a socket's path may be
    deep.mkdir(parents=True)
    return deep


@pytest.fixture
def ear(folder: Path) -> Iterator[Ear]:
    with closing(Ear(folder)) as ear:
        yield ear


def test_hints_that_come_together_are_heard_together(ear: Ear, folder: Path) -> None:
    mouth = Mouth(folder)
    assert mouth.hint(LOOK)
    assert mouth.hint(VERIFY)
    heard = ear.wait(10)
    assert (list(heard), heard.verify, heard.askers()) == ([LOOK, VERIFY], True, [])
    assert ear.wait(0.01) == []


def test_who_asks_waits_until_it_is_done(ear: Ear, folder: Path) -> None:
    mouth = Mouth(folder)
    done: list[str] = []

    def look() -> None:
        heard = ear.wait(10)
        done.append("looked")
        ear.answer(heard.askers())

    thread = threading.Thread(target=look)
    thread.start()
    mouth.ask(LOOK)
    assert done == ["looked"]
    thread.join()
    assert [path.name for path in folder.iterdir()] == ["keeper"]


def test_who_asks_is_told_why_it_failed(ear: Ear, folder: Path) -> None:
    mouth = Mouth(folder)
    thread = threading.Thread(target=lambda: ear.answer(ear.wait(10).askers(), "the bucket is away"))
    thread.start()
    with pytest.raises(Unavailable, match="the bucket is away"):
        mouth.ask(LOOK)
    thread.join()


def test_without_a_keeper_a_hint_is_lost_and_a_question_fails(folder: Path) -> None:
    assert not Mouth(folder).hint(LOOK)
    with pytest.raises(Unavailable, match="started again"):
        Mouth(folder).ask(LOOK)


def test_a_keeper_that_does_not_answer_is_not_waited_for_forever(ear: Ear, folder: Path) -> None:
    with pytest.raises(Unavailable, match="not read within"):
        Mouth(folder).ask(LOOK, seconds=0.05)


def test_of_a_long_reason_the_beginning_is_told(ear: Ear, folder: Path) -> None:
    thread = threading.Thread(target=lambda: ear.answer(ear.wait(10).askers(), "x" + "ü" * 3000))
    thread.start()
    with pytest.raises(Unavailable, match=r"^xü{2000}"):
        Mouth(folder).ask(LOOK)
    thread.join()


def test_without_a_folder_a_hint_is_lost_and_a_question_fails(ear: Ear, folder: Path) -> None:
    shutil.rmtree(folder)
    ear.answer(["asker"])
    assert not Mouth(folder).hint(LOOK)
    with pytest.raises(Unavailable, match="started again"):
        Mouth(folder).ask(LOOK)


def test_a_new_keeper_takes_the_place_of_one_that_died(ear: Ear, folder: Path) -> None:
    with closing(Ear(folder)) as newer:
        assert Mouth(folder).hint(LOOK)
        assert (newer.wait(10), ear.wait(0.01)) == ([LOOK], [])


def test_more_hints_than_there_is_room_for_are_no_error(ear: Ear, folder: Path) -> None:
    assert all(Mouth(folder).hint(LOOK) for _ in range(2000))
    assert ear.wait(10).askers() == []
