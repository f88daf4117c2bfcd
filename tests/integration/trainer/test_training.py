"""From a dataset to a served release, with real jobs."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from conftest_trainer import PIPELINE, Datasets
