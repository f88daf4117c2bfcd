"""The one place of a worker that reads the environment; the workers are started by `python -m predictor.server`."""

import gc
import os
from multiprocessing.util import Finalize
from pathlib import Path

from flask import Flask

from esteira.exceptions import SettingsInvalid
from esteira.logs import configure_logging
from esteira.publisher import Publisher
from esteira.pushes import PushVerifier, load_verifier, make_verifier
from esteira.settings import read_settings
from esteira.web import name_build
from predictor.access import Access, read_keys
from predictor.app import create_app
from predictor.deadlines import Deadlines
from predictor.limits import THREADS, Budget
from predictor.memory import give_back_at_rest
from predictor.prediction_log import PredictionLog
from predictor.sampling import Sampler
from predictor.serving import Servings
from predictor.settings import PredictorSettings, split_list
from predictor.shadow import Shadows
from predictor.state import StateFolder
from predictor.supervisor import STATE_DIR

NICE = 5
"""Of workers, so that the keeper comes first: it publishes what they answer."""
PATIENCE_SECONDS = 2.0
"""Before a worker listens without a release: a client that another worker has answered already may come to this one."""


def create() -> Flask:
    """Makes the app of one worker process, and starts its threads: one follows what the keeper fetches, one scores
    shadows, one ends the connections of slow clients, one gives memory back."""
    os.nice(NICE)
    settings = read_settings(PredictorSettings, os.environ)
    configure_logging("predictor", settings.log_level, settings.google_cloud_project)
    state = _state_folder()
    publisher = Publisher(settings.google_cloud_project)
    sampler = Sampler(settings.sample_share)
    log = PredictionLog(publisher, settings.spool, sampler, settings.spool_bytes, StateFolder(state))
    shadows = Shadows(log)
    servings = Servings(state, shadows)
    servings.start(PATIENCE_SECONDS)
    shadows.start()
    Finalize(None, shadows.close, exitpriority=0)  # at the end of a process, whoever forked it
    budget = Budget(settings.max_pending_bytes, int(os.environ.get("THREADS") or THREADS))
    deadlines = Deadlines(settings.body_seconds)
    deadlines.start()
    give_back_at_rest(lambda: (budget.finished, [one.pointer for one in servings.all()]))
    access, options = make_access(settings), settings.dialect_options
    app = create_app(servings, log, publisher, make_verifier(settings), access, budget, options, deadlines)
    return name_build(app, settings)


def prepare() -> None:
    """Checks the settings and loads what all workers need, in the process that they are forked from.

    They share its pages, which the collector leaves alone from then on: it would write to each, and each of a worker's
    collections would go through all of them.
    """
    settings = read_settings(PredictorSettings, os.environ)
    if settings.push_authentication != "none" or settings.client_audience:
        load_verifier()
    gc.collect()
    gc.freeze()


def make_access(settings: PredictorSettings) -> Access:
    """Who may ask, as the settings say."""
    accounts, admins = split_list(settings.client_accounts), split_list(settings.client_admins)
    callers = [*accounts, *admins]
    verifier = PushVerifier(settings.client_audience or "", callers[0], settings.push_certs_url) if callers else None
    return Access(read_keys(settings.api_keys or ""), verifier, accounts, admins)


def _state_folder() -> Path:
    if not (path := os.environ.get(STATE_DIR)):
        raise SettingsInvalid(f"{STATE_DIR} is not set: start `python -m predictor.server`, which starts the workers")
    return Path(path)
