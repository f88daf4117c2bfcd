"""Fits the candidates that a pipeline names, and its own where it brings a model.py."""

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from esteira.exceptions import PermanentError, PipelineInvalid
from esteira.pipeline import LoadedPipeline
from esteira.schema import Feature
from esteira.scoring import Array
from esteira.scoring import Task as ModelTask
from esteira.statement import Statement
from trainer.data import Data
from trainer.evaluate import MAIN_METRIC, Task, evaluate
from trainer.learners import build_pipeline, encode_frame, fit, learn_features, predict_scores

logger = logging.getLogger(__name__)

OWN_MODEL = "model.py"
MODEL_TASK: Mapping[Task, ModelTask] = {"classification": "binary", "regression": "regression"}


class Candidate(msgspec.Struct, frozen=True):
    """A fitted estimator, measured on the held-out rows."""

    learner: str
    estimator: Any
    params: dict[str, Any]
    scores: Array
    """Of the held-out rows, in their order."""
    metrics: dict[str, float]
    seconds: float


class Matrices(msgspec.Struct, frozen=True):
    """What candidates are fitted on and measured on."""

    features: list[Feature]
    train: Array
    train_label: Array
    test: Array
    test_label: Array


def make_matrices(statement: Statement, data: Data) -> Matrices:
    """Encodes the rows; which categories there are is learnt from the training rows alone."""
    train, test = data.train, data.test
    features = learn_features(train, {feature.name: feature.kind for feature in statement.features})
    return Matrices(
        features, encode_frame(features, train), data.train_label, encode_frame(features, test), data.test_label
    )


def fit_candidates(pipeline: LoadedPipeline, matrices: Matrices, check: Callable[[], None]) -> list[Candidate]:
    """Fits every learner of the pipeline, best first.

    Args:
        pipeline: names the learners, their parameters and the seed.
        matrices: the rows.
        check: raises where the work is no longer wanted; called between learners.

    Raises:
        PipelineInvalid: a learner or parameter does not exist, or model.py does not do what it should.
    """
    candidates = []
    for learner in _learners(pipeline):
        check()
        candidates.append(_fit(pipeline, learner, matrices))
    main = MAIN_METRIC[pipeline.spec.task]
    return sorted(candidates, key=lambda candidate: -candidate.metrics[main])


def _learners(pipeline: LoadedPipeline) -> list[str]:
    own = [OWN_MODEL] if (pipeline.folder / OWN_MODEL).is_file() else []
    return [*pipeline.spec.training.learners, *own]


def _fit(pipeline: LoadedPipeline, learner: str, matrices: Matrices) -> Candidate:
    begun, task = time.perf_counter(), pipeline.spec.task
    logger.info("fitting", extra={"learner": learner, "rows": len(matrices.train)})
    params = {**pipeline.spec.training.params.get(learner, {}), "random_state": pipeline.spec.training.seed}  # type: ignore[call-overload]
    estimator = fit(
        _build(pipeline, learner, matrices.features, params), matrices.features, matrices.train, matrices.train_label
    )
    scores = predict_scores(estimator, matrices.test, MODEL_TASK[task])
    metrics = evaluate(task, matrices.test_label, scores)
    seconds = time.perf_counter() - begun
    logger.info("fitted", extra={"learner": learner, "seconds": round(seconds, 3), **metrics})
    return Candidate(learner, estimator, params, scores, metrics, seconds)


def _build(pipeline: LoadedPipeline, learner: str, features: Sequence[Feature], params: dict[str, Any]) -> Any:
    if learner == OWN_MODEL:
        return _build_own(pipeline.folder / OWN_MODEL, features, params)
    return build_pipeline(learner, features, MODEL_TASK[pipeline.spec.task], params)


def _build_own(path: Path, features: Sequence[Feature], params: dict[str, Any]) -> Any:
    """Calls `build_model(params)` with the seed and the columns of the matrix that it will be fitted on."""
    columns = {
        "features": [feature.name for feature in features],
        "categorical_features": [i for i, feature in enumerate(features) if feature.kind == "categorical"],
    }
    try:
        estimator = _load(path).build_model({**params, **columns})
    except PermanentError:
        raise
    except Exception as error:  # whatever a pipeline's own code may raise
        raise PipelineInvalid(f"{path}: build_model failed: {type(error).__name__}: {error}; mend it") from error
    if not hasattr(estimator, "fit"):
        raise PipelineInvalid(f"{path}: build_model gave {type(estimator).__name__}; return a scikit-learn estimator")
    return estimator


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"esteira_pipeline_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise PipelineInvalid(f"{path}: is no Python module; mend it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "build_model", None)):
        raise PipelineInvalid(f"{path}: has no function build_model(params); add it")
    return module
