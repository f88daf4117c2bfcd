"""The dashboard shows what is there, and what comes from outside is shown as text."""

from uuid import uuid4

from sqlalchemy import insert, text

from esteira.tables import ingestions

from .conftest import PIPELINE, World


def page(world: World) -> str:
    answer = world.client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return answer.get_data(as_text=True)


def test_a_pipeline_without_traffic_has_a_page(world: World) -> None:
    assert "No window was judged yet" in page(world)


def test_a_pipeline_without_a_model_has_a_page(world: World) -> None:
    world.write(text("DELETE FROM promotions"))
    assert "no model was promoted yet" in page(world)


def test_a_judged_window_is_drawn_and_explained(world: World) -> None:
    predictions = world.predictions(300)
    world.serve(predictions)
    world.observe(world.outcomes(predictions))
    shown = page(world)
    (window,) = world.windows()
    assert window["reason"] in shown.replace("&#39;", "'")
    assert '<path class="line"' in shown
    assert "weight" in shown


def test_what_comes_from_outside_is_escaped(world: World) -> None:
    row = {"id": uuid4(), "pipeline": PIPELINE, "bucket": "b", "object": "raw/<img src=x>", "generation": 1}
    world.write(insert(ingestions).values(**row, status="done", reasons={"<script>alert(1)</script>": 3}))
    shown = page(world)
    assert "<img" not in shown
    assert shown.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in shown


def test_an_unknown_pipeline_is_told(world: World) -> None:
    for path in ("", "/windows", "/drift"):
        assert world.client.get(f"/pipelines/nothing{path}").status_code == 404


def test_windows_can_be_asked_for_from_a_time_on(world: World) -> None:
    world.serve(world.predictions(30))
    world.settle()
    world.reconcile()
    answers = {start: world.client.get(f"/pipelines/{PIPELINE}/windows?start={start}") for start in ("2024-05-07", "x")}
    assert answers["2024-05-07"].json == {"windows": []}
    assert answers["x"].status_code == 400
    assert len(world.windows()) == 1
