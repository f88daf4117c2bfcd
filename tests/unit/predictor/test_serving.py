"""What a worker makes of what the keeper tells."""

import shutil
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from esteira.exceptions import Unavailable, UnknownPipeline
from esteira.release import Challenger, Pointer, release_path
from predictor.dialects.answering import default_serving
from predictor.hints import VERIFY, Ear
from predictor.serving import Servings
from predictor.state import Board, Fetched, Notice, Refusal, StateFolder
from releases import BuiltRelease, build_release, write_manifest


class Told:
    """A worker, and a keeper's word."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.state = StateFolder(folder)
        self.servings = Servings(folder)

    def tell(self, looked: bool = True, **notice: object) -> None:
        self.state.write_board(Board(looked, {"shop": Notice(**notice)}))  # type: ignore[arg-type]
        self.servings.apply()

    def served(self) -> str:
        return self.servings.get("shop").runtime.release.version


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "state")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    return build_release(tmp_path_factory.mktemp("second"), "v2", seed=2)


def fetched(built: BuiltRelease, arrived: int = 1) -> Fetched:
    return Fetched(str(built.folder), arrived)


def trying(champion: BuiltRelease, challenger: BuiltRelease) -> Pointer:
    version = challenger.release.version
    named = Challenger(version=version, path=release_path("shop", version), sha256=challenger.sha256, share=0.5)
    return msgspec.structs.replace(champion.pointer(2), challenger=named)


def test_before_the_pointers_were_read_no_pipeline_is_said_to_be_unknown(told: Told, first: BuiltRelease) -> None:
    told.tell(looked=False, pointer=first.pointer(), champion=fetched(first))
    assert told.served() == "v1"
    with pytest.raises(Unavailable, match="not been read"):
        told.servings.get("other")
    told.tell(pointer=first.pointer(), champion=fetched(first))
    with pytest.raises(UnknownPipeline):
        told.servings.get("other")


def test_before_the_pointers_were_read_nobody_knows_that_there_is_no_default(told: Told) -> None:
    with pytest.raises(Unavailable, match="not been read"):
        default_serving(told.servings, None)
    told.state.write_board(Board(looked=True))
    told.servings.apply()
    with pytest.raises(UnknownPipeline, match="promoted yet"):
        default_serving(told.servings, None)


def test_it_is_ready_once_the_pointers_were_read_and_all_is_served(told: Told, first: BuiltRelease) -> None:
    with pytest.raises(Unavailable, match="not been read"):
        told.servings.require_ready()
    told.tell(looked=False, pointer=first.pointer(), champion=fetched(first))
    assert told.served() == "v1"
    with pytest.raises(Unavailable, match="not been read"):
        told.servings.require_ready()
    told.tell(pointer=first.pointer(), champion=fetched(first))
    told.servings.require_ready()


def test_what_the_keeper_could_not_fetch_is_refused_and_the_old_one_stays(told: Told, first: BuiltRelease) -> None:
    refusal = Refusal("shop", "v2", "model.onnx is missing")
    told.tell(refused=refusal)
    with pytest.raises(Unavailable, match="GET /pipelines says which and why"):
        told.servings.require_ready()
    told.tell(pointer=first.pointer(), champion=fetched(first), refused=refusal)
    assert (told.served(), told.servings.refusals()) == ("v1", {"shop": refusal})
    told.servings.require_ready()
    told.tell(pointer=first.pointer(3), champion=fetched(first))
    assert told.servings.refusals() == {}


def test_a_challenger_comes_after_its_champion_and_is_promoted_without_being_loaded_again(
    told: Told, first: BuiltRelease, second: BuiltRelease
) -> None:
    pointer = trying(first, second)
    told.tell(pointer=pointer, champion=fetched(first))
    assert (told.served(), told.servings.get("shop").challenger) == ("v1", None)
    told.tell(pointer=pointer, champion=fetched(first), challenger=fetched(second))
    challenger = told.servings.get("shop").challenger
    assert challenger is not None
    told.tell(pointer=second.pointer(3), champion=fetched(second))
    assert told.servings.get("shop").runtime is challenger


def test_a_challenger_that_is_refused_is_told_until_it_is_there(
    told: Told, first: BuiltRelease, second: BuiltRelease
) -> None:
    pointer, refusal = trying(first, second), Refusal("shop", "v2", "not there yet")
    told.tell(pointer=pointer, champion=fetched(first), refused_challenger=refusal)
    assert told.servings.refused_challenger("shop") == refusal
    told.tell(pointer=pointer, champion=fetched(first), challenger=fetched(second))
    assert told.servings.refused_challenger("shop") is None


def test_a_release_that_answers_otherwise_than_it_did_is_refused_by_the_worker(
    told: Told, first: BuiltRelease, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told.tell(pointer=first.pointer(), champion=fetched(first))
    wrong = build_release(tmp_path, "v3")
    release = msgspec.structs.replace(wrong.release, example_scores=[0.5, 0.5, 0.5])
    pointer = msgspec.structs.replace(wrong.pointer(2), sha256=write_manifest(wrong.folder, release))
    for _ in range(2):
        told.tell(pointer=pointer, champion=fetched(wrong))
    assert told.served() == "v1"
    assert "it was released with" in told.servings.refusals()["shop"].reason
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["release refused"]


def test_a_release_that_was_damaged_since_is_served_once_it_was_fetched_again(
    told: Told, first: BuiltRelease, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(first.folder, tmp_path / "copy")
    (folder / "model.onnx").write_bytes(b"damaged")
    told.tell(pointer=first.pointer(), champion=Fetched(str(folder), 1))
    with pytest.raises(Unavailable, match=r"model\.onnx has sha256"):
        told.servings.get("shop")
    shutil.copytree(first.folder, folder, dirs_exist_ok=True)
    told.tell(pointer=first.pointer(), champion=Fetched(str(folder), 2))
    assert told.served() == "v1"
    assert [r.levelname for r in caplog.records if "damaged" in r.message] == ["WARNING"]


def test_a_release_whose_damage_comes_back_is_not_asked_for_all_the_time(
    told: Told, first: BuiltRelease, tmp_path: Path, socket_enabled: None
) -> None:
    folder = shutil.copytree(first.folder, tmp_path / "copy")
    (folder / "model.onnx").write_bytes(b"damaged")
    with closing(Ear(told.state.path)) as ear:
        for arrived in range(5):
            told.tell(pointer=first.pointer(), champion=Fetched(str(folder), arrived))
        assert ear.wait(10) == [VERIFY]
    shutil.copytree(first.folder, folder, dirs_exist_ok=True)
    told.servings.apply()
    assert told.served() == "v1"


def test_a_worker_without_a_state_folder_goes_on(told: Told, first: BuiltRelease) -> None:
    told.tell(pointer=first.pointer(), champion=fetched(first))
    shutil.rmtree(told.state.path)
    told.servings.apply()
    assert told.served() == "v1"
