import hashlib
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from esteira.exceptions import Forbidden, SettingsInvalid, Unauthenticated
from esteira.settings import read_settings
from esteira_cli.main import cli
from predictor.access import ADMIN, TOKEN_SECONDS, Access, read_keys
from predictor.app import create_app
from predictor.dialects.options import DialectOptions
from predictor.limits import Budget
from predictor.main import make_access
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from predictor.settings import PredictorSettings
from predictor.state import Board, Notice, Refusal, StateFolder
from publishers import Nowhere
from releases import build_release, raw_rows

NEEDED = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET": "b", "PUSH_AUTHENTICATION": "none"}
BODY = {"rows": raw_rows(2)}


def line(client: str, key: str, scopes: str) -> str:
    return f"{client} {hashlib.sha256(key.encode()).hexdigest()} {scopes}"


KEYS = "\n".join(
    [line("web", "k1", "shop"), "# a comment", "", line("ops", "k2", "*,admin"), line("other", "k3", "x,y")]
)


@pytest.fixture(scope="module")
def servings(tmp_path_factory: pytest.TempPathFactory) -> Servings:
    cache = tmp_path_factory.mktemp("cache")
    built = build_release(cache)
    built.folder.rename(cache / built.sha256)
    servings = Servings(cache)
    servings.serve("shop", built.pointer(), cache / built.sha256)
    return servings


def client(
    servings: Servings,
    folder: Path,
    access: Access,
    budget: Budget | None = None,
    options: DialectOptions = DialectOptions(),  # noqa: B008  frozen
) -> FlaskClient:
    log = PredictionLog(Nowhere(), folder / "spool")  # type: ignore[arg-type]
    return create_app(servings, log, Nowhere(), None, access, budget, options).test_client()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-Api-Key": "nonsense"}, 401),
        ({"X-Api-Key": "k1"}, 200),
        ({"X-Api-Key": "k2"}, 200),
        ({"X-Api-Key": "k3"}, 403),
        ({"X-Api-Key": "é"}, 401),
        ({"Authorization": "Bearer k1"}, 401),
    ],
)
@pytest.mark.parametrize("short", [True, False])
def test_a_key_opens_the_pipelines_that_it_is_for(
    servings: Servings, tmp_path: Path, headers: dict[str, str], status: int, short: bool
) -> None:
    kind = "application/json" if short else "application/json; charset=UTF-8"  # the second goes the framework's way
    asked = client(servings, tmp_path, Access(read_keys(KEYS)))
    answer = asked.post("/pipelines/shop/predict", json=BODY, headers=headers, content_type=kind)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/pipelines/shop/feedback"),
        ("GET", "/pipelines"),
        ("GET", "/pipelines/shop"),
        ("GET", "/no/such/thing"),
        ("GET", "/admin/state"),
        ("POST", "/admin/refresh"),
        ("POST", "/invocations"),
        ("POST", "/v2/models/shop/infer"),
        ("POST", "/v1/models/shop:predict"),
        ("GET", "/v1/models/shop"),
    ],
)
def test_nothing_is_open_to_whoever_sends_no_key(servings: Servings, tmp_path: Path, method: str, path: str) -> None:
    assert client(servings, tmp_path, Access(read_keys(KEYS))).open(path, method=method).status_code == 401


@pytest.mark.parametrize("path", ["/invocations", "/v2/models/shop/infer", "/v1/models/shop:predict"])
def test_a_key_for_other_pipelines_opens_no_dialect(servings: Servings, tmp_path: Path, path: str) -> None:
    asked = client(servings, tmp_path, Access(read_keys(KEYS)))
    assert asked.post(path, json={}, headers={"X-Api-Key": "k3"}).status_code == 403
    assert asked.post(path, json={}, headers={"X-Api-Key": "k1"}).status_code == 400


@pytest.mark.parametrize(("key", "names"), [("k1", {"shop"}), ("k2", {"shop"}), ("k3", set())])
def test_a_key_is_told_of_the_pipelines_that_it_is_for(
    servings: Servings, tmp_path: Path, key: str, names: set[str]
) -> None:
    asked, headers = client(servings, tmp_path, Access(read_keys(KEYS))), {"X-Api-Key": key}
    assert {entry["pipeline"] for entry in asked.get("/pipelines", headers=headers).get_json()} == names
    assert set(asked.get("/v1/models", headers=headers).get_json()["models"]) == names
    assert ("shop" in asked.get("/openapi.json", headers=headers).text) is bool(names)


def test_the_documentation_says_how_to_be_let_in_to_whoever_is_not_yet(servings: Servings, tmp_path: Path) -> None:
    tokens = Access((), InMemoryVerifier(), ["web@x.org"])  # type: ignore[arg-type]
    for access, schemes in (
        (Access(read_keys(KEYS)), {"key": ("apiKey", "X-Api-Key")}),
        (tokens, {"token": ("http", None)}),
        (Access(), {}),
    ):
        asked = client(servings, tmp_path, access)
        assert asked.get("/docs/").status_code == 200
        with asked.get("/docs/swagger-ui.css") as style:
            assert style.status_code == 200
        said = asked.get("/openapi.json").get_json()
        described = said["components"]["securitySchemes"]
        assert {name: (one["type"], one.get("name")) for name, one in described.items()} == schemes
        assert said["security"] == [{name: []} for name in schemes]
        assert (said["paths"]["/health/live"]["get"].get("security") == []) is bool(schemes)
        assert ("shop" in str(said)) is access.is_open


def test_the_documentation_of_no_pipeline_does_not_say_why(servings: Servings, tmp_path: Path) -> None:
    told = set()
    for served, access in ((servings, Access(read_keys(KEYS))), (Servings(tmp_path), Access())):
        options = DialectOptions(predict_route="/vertex/predict")
        paths = client(served, tmp_path, access, options=options).get("/openapi.json").get_json()["paths"]
        told |= {paths[path]["post"]["summary"] for path in ("/invocations", "/vertex/predict")}
    assert told == {"Predict by the pipeline DEFAULT_PIPELINE, or the only one there is"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/ping", "/v2/health/live"])
def test_probes_need_no_key(servings: Servings, tmp_path: Path, path: str) -> None:
    assert client(servings, tmp_path, Access(read_keys(KEYS))).get(path).status_code in (200, 503)


@pytest.mark.parametrize("path", ["/health/ready", "/health", "/ping", "/v2/health/ready", "/vertex/health"])
def test_who_has_no_key_is_not_told_which_release_was_refused_and_why(tmp_path: Path, path: str) -> None:
    notice = Notice(refused=Refusal("shop", "v2", "model.onnx is missing"))
    StateFolder(tmp_path).write_board(Board(looked=True, notices={"shop": notice}))
    servings = Servings(tmp_path)
    servings.apply()
    options = DialectOptions(health_route="/vertex/health")
    asked = client(servings, tmp_path, Access(read_keys(KEYS)), options=options)
    answer = asked.get(path)
    assert (answer.status_code, "a release was refused" in answer.text) == (503, True)
    assert not any(told in answer.text for told in ("shop", "v2", "onnx"))
    assert "model.onnx is missing" in asked.get("/pipelines", headers={"X-Api-Key": "k1"}).text
    assert asked.get("/pipelines", headers={"X-Api-Key": "k3"}).get_json() == []


@pytest.mark.parametrize(("key", "status"), [("k1", 403), ("k2", 200), ("k3", 403)])
def test_admin_routes_need_a_key_that_says_so(servings: Servings, tmp_path: Path, key: str, status: int) -> None:
    asked = client(servings, tmp_path, Access(read_keys(KEYS)))
    assert asked.get("/admin/state", headers={"X-Api-Key": key}).status_code == status


def test_without_any_key_admin_routes_are_closed_and_others_open(servings: Servings, tmp_path: Path) -> None:
    asked = client(servings, tmp_path, Access())
    assert asked.get("/pipelines").status_code == 200
    assert asked.get("/admin/state").status_code == 403


@pytest.mark.parametrize("text", ["web abc *", "web " + "0" * 64, f"a b {'0' * 64} *", f"{'0' * 64} *"])
def test_lines_that_are_no_keys_are_named_without_their_content(text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read_settings(PredictorSettings, {**NEEDED, "API_KEYS": f"{KEYS}\n{text}"})
    assert "API_KEYS line 6" in str(caught.value)
    assert text not in str(caught.value)


def test_the_command_draws_a_key_that_its_line_opens() -> None:
    told = CliRunner().invoke(cli, ["key", "web", "shop", "flights", "--admin"]).output.splitlines()
    drawn, entry = told[0].rsplit("  ", 1)[1], told[1].rsplit("  ", 1)[1]
    access = Access(read_keys(entry))
    for scope in ("shop", "flights", ADMIN):
        assert access.require({"HTTP_X_API_KEY": drawn}, scope) == "web"
    with pytest.raises(Forbidden):
        access.require({"HTTP_X_API_KEY": drawn}, "other")
    assert CliRunner().invoke(cli, ["key", "a b"]).exit_code == 2


class InMemoryVerifier:
    """Believes every token, which is an e-mail address, of the accounts that are admitted."""

    def __init__(self) -> None:
        self.asked = 0

    def verify(self, authorization: str, others: Collection[str] = ()) -> str:
        self.asked += 1
        email = authorization.removeprefix("Bearer ")
        if email not in {"pushes@x.org", *others}:
            raise Unauthenticated("nobody")
        return email


class Tokens:
    """Access by tokens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.verifier = InMemoryVerifier()
        self.access = Access(
            (),
            self.verifier,
            ["web@x.org", "app@x.org"],
            ["ops@x.org"],
            lambda: self.now,  # type: ignore[arg-type]
        )

    def require(self, email: str, scope: str | None = "shop") -> str | None:
        return self.access.require({"HTTP_AUTHORIZATION": f"Bearer {email}"}, scope)


def test_tokens_let_accounts_in_and_admins_below_admin() -> None:
    tokens = Tokens()
    assert [tokens.require(email) for email in ("web@x.org", "app@x.org", "ops@x.org")]
    assert tokens.require("ops@x.org", ADMIN) == "ops@x.org"
    for email in ("web@x.org", "pushes@x.org"):
        with pytest.raises(Forbidden):
            tokens.require(email, ADMIN)
    with pytest.raises(Unauthenticated):
        tokens.require("else@x.org")


def test_a_token_is_verified_once_a_minute() -> None:
    tokens = Tokens()
    for _ in range(5):
        tokens.require("web@x.org")
    assert tokens.verifier.asked == 1
    tokens.now = TOKEN_SECONDS
    tokens.require("web@x.org")
    assert tokens.verifier.asked == 2


def test_the_environment_says_whose_tokens_are_believed() -> None:
    environ = {"CLIENT_AUDIENCE": "https://p", "CLIENT_ACCOUNTS": "web@x.org", "CLIENT_ADMINS": "ops@x.org"}
    access = make_access(read_settings(PredictorSettings, {**NEEDED, **environ}))
    assert not access.is_open
    with pytest.raises(Unauthenticated, match="refused"):
        access.require({"HTTP_AUTHORIZATION": "Bearer a.b.c"}, "shop")
    assert make_access(read_settings(PredictorSettings, NEEDED)).is_open


def test_accounts_without_an_audience_are_a_mistake() -> None:
    with pytest.raises(SettingsInvalid, match="CLIENT_AUDIENCE"):
        read_settings(PredictorSettings, {**NEEDED, "CLIENT_ADMINS": "a@x.org"})


def test_more_than_the_budget_is_answered_429(servings: Servings, tmp_path: Path) -> None:
    budget = Budget(1000)
    asked = client(servings, tmp_path, Access(), budget)
    assert asked.post("/pipelines/shop/predict", json={"rows": raw_rows(50)}).status_code == 200  # alone it may
    assert budget.take(900)
    for path in ("/pipelines/shop/predict", "/invocations"):
        answer = asked.post(path, json=BODY)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    budget.give(900)
    assert asked.post("/pipelines/shop/predict", json=BODY).status_code == 200


def test_a_budget_is_never_overdrawn_by_threads_and_all_comes_back() -> None:
    budget, seen = Budget(10), []

    def work() -> None:
        for _ in range(500):
            if budget.take(4):
                seen.append(budget._taken)
                budget.give(4)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) <= 8
    assert budget.finished == len(seen)
    assert budget._taken == 0


def test_slow_requests_leave_two_threads_to_probes_and_quick_ones() -> None:
    budget, may_end, held = Budget(1000, threads=4, slow_seconds=0.01), threading.Event(), threading.Barrier(3)

    def hold() -> None:
        assert budget.take(1)
        held.wait(10)
        may_end.wait(10)
        budget.give(1)

    slow = [threading.Thread(target=hold) for _ in range(2)]
    for thread in slow:
        thread.start()
    held.wait(10)
    deadline = time.monotonic() + 10
    while budget.take(1):  # until both count as slow
        budget.give(1)
        assert time.monotonic() < deadline
    may_end.set()
    for thread in slow:
        thread.join()
    assert budget.take(1)
    budget.give(1)


def test_many_quick_requests_at_once_are_no_slow_ones() -> None:
    budget, taken = Budget(1000, threads=4), []
    threads = [threading.Thread(target=lambda: taken.append(budget.take(1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [True] * 4
