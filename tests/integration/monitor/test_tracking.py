"""Figures reach MLflow, sooner or later, each model version in one run."""

import time

from mlflow import MlflowClient

from monitor.tracking import REST_SECONDS

from .conftest import PIPELINE, World


def judged(world: World) -> None:
    predictions = world.predictions(300)
    world.serve(predictions)
    world.observe(world.outcomes(predictions))


def test_figures_wait_while_mlflow_is_away_and_are_written_once_it_is_back(world: World, mlflow_server: str) -> None:
    judged(world)
    started = time.monotonic()
    assert world.reconcile()["tracked"] == 0
    assert time.monotonic() - started < REST_SECONDS
    waiting = world.rows("SELECT id FROM checks WHERE NOT tracked AND value IS NOT NULL")
    assert waiting

    world.mlflow = mlflow_server
    world.start()
    assert world.reconcile()["tracked"] == len(waiting)
    assert world.reconcile()["tracked"] == 0
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name(f"{PIPELINE}-monitoring")
    (run,) = client.search_runs([experiment.experiment_id])
    (window,) = world.windows()
    assert run.data.tags["esteira.model_version"] == "r1"
    assert run.data.metrics["auc"] == window["auc"]
    assert run.data.metrics["psi/weight"] > 0

    judged(world)
    assert world.reconcile()["tracked"] > 0
    assert len(client.search_runs([experiment.experiment_id])) == 1
    newest = client.get_run(run.info.run_id)
    assert newest.data.metrics["labelled"] == 600
