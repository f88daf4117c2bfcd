"""The one place that reads the environment: `python -m predictor.server`."""

import os
import re
import tempfile
from collections.abc import Mapping
from multiprocessing.util import Finalize
from pathlib import Path

from flask import Flask

from esteira.bucket import Bucket
from esteira.logs import configure_logging
from esteira.publisher import Publisher
from esteira.pushes import PushVerifier, make_verifier
from esteira.settings import read_settings
from esteira.web import name_build
from predictor.access import Access, read_keys
from predictor.app import create_app
from predictor.limits import Budget
from predictor.prediction_log import PredictionLog
from predictor.sampling import Sampler
from predictor.serving import Servings
from predictor.settings import PredictorSettings, split_list
from predictor.shadow import Shadows


def create() -> Flask:
    """Makes the app of one worker process and starts its three threads: the pointers', the log's and the shadows'."""
    settings = read_settings(PredictorSettings, os.environ)
    configure_logging("predictor", settings.log_level, settings.google_cloud_project)
    cache = settings.cache_dir or Path(tempfile.gettempdir()) / f"esteira-predictor-{os.getuid()}"
    publisher = Publisher(settings.google_cloud_project)
    bucket = Bucket(settings.bucket, settings.google_cloud_project)
    spool = settings.spool_dir or cache / "spool" / name_destination(settings, os.environ)
    sampler = Sampler(settings.sample_share)
    log = PredictionLog(publisher, settings.log_flush_seconds, spool, sampler, settings.spool_bytes)
    shadows = Shadows(log)
    servings = Servings(bucket, cache, settings.pointer_poll_seconds, settings.pinned, shadows)
    servings.start()
    log.start()
    shadows.start()
    Finalize(None, shadows.close, exitpriority=1)  # before the log, which takes what is scored at the last
    Finalize(None, log.close, exitpriority=0)  # at the end of a process, whether a server forked it or multiprocessing
    budget = Budget(settings.max_pending_bytes)
    app = create_app(
        servings, log, publisher, make_verifier(settings), make_access(settings), budget, settings.dialect_options
    )
    return name_build(app, settings)


def make_access(settings: PredictorSettings) -> Access:
    """Who may ask, as the settings say."""
    accounts, admins = split_list(settings.client_accounts), split_list(settings.client_admins)
    callers = [*accounts, *admins]
    verifier = PushVerifier(settings.client_audience or "", callers[0], settings.push_certs_url) if callers else None
    return Access(read_keys(settings.api_keys or ""), verifier, accounts, admins)


def name_destination(settings: PredictorSettings, environ: Mapping[str, str]) -> str:
    """A folder's name for the Pub/Sub that predictions wait for: what was meant for one is never sent to another."""
    address = f"{settings.google_cloud_project}@{environ.get('PUBSUB_EMULATOR_HOST') or 'pubsub'}"
    return re.sub(r"[^A-Za-z0-9.@-]", "_", address)
