"""Where etl reads its environment and is put together: `gunicorn -c python:esteira.gunicorn 'etl.main:create()'`."""

import logging
import os
from collections.abc import Mapping

from flask import Flask

from esteira.bucket import Bucket
from esteira.database import make_engine
from esteira.exceptions import EsteiraError
from esteira.logs import configure_logging
from esteira.outbox import Relay
from esteira.publisher import Publisher
from esteira.pushes import make_verifier
from esteira.settings import read_settings
from esteira.web import name_build
from etl.app import create_app
from etl.attempt import Attempts
from etl.handlers import Handlers
from etl.ingest import Ingestor
from etl.settings import EtlSettings
from etl.workbench import make_workbenches

logger = logging.getLogger(__name__)


def create(environ: Mapping[str, str] = os.environ) -> Flask:
    """Makes the service's app.

    Raises:
        EsteiraError: a setting or a pipeline's folder is wrong; the log says which, where and what to do.
    """
    configure_logging("etl", environ.get("LOG_LEVEL") or "info", environ.get("GOOGLE_CLOUD_PROJECT"))
    try:
        return _assemble(read_settings(EtlSettings, environ))
    except EsteiraError as error:
        logger.critical("service cannot start", extra={"error": str(error)})
        raise


def _assemble(settings: EtlSettings) -> Flask:
    workbenches = make_workbenches(settings.pipelines_dir)
    engine = make_engine(settings.database_url, settings.pool_size)
    bucket = Bucket(settings.bucket, settings.google_cloud_project, settings.storage_emulator_host)
    attempts = Attempts(engine, bucket, workbenches, settings.max_file_bytes)
    relay = Relay(engine, Publisher(settings.google_cloud_project))
    handlers = Handlers(engine, bucket, Ingestor(engine, attempts, settings.lease_seconds), relay, workbenches)
    logger.info("service ready", extra={"pipelines": sorted(workbenches)})
    return name_build(create_app(handlers, make_verifier(settings)), settings)
