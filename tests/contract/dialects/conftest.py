"""For every dialect."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from contract.dialects.site import Site
from predictor.dialects.options import DialectOptions
from releases import BuiltRelease, build_release


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    """A classification."""
    return build_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def built_regression(tmp_path_factory: pytest.TempPathFactory) -> BuiltRelease:
    """A regression."""
    return build_release(tmp_path_factory.mktemp("release"), task="regression")


@pytest.fixture(scope="session")
def site(built: BuiltRelease, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The predictor with Vertex AI's paths, serving one classification."""
    options = DialectOptions(health_route="/vertex/health", predict_route="/vertex/predict")
    return Site(built, tmp_path_factory.mktemp("site"), options)


@pytest.fixture(scope="session")
def regression(built_regression: BuiltRelease, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The predictor serving one regression."""
    return Site(built_regression, tmp_path_factory.mktemp("regression"))
