"""The application of `ruled` with Prometheus metrics, as its author would add them."""

from __future__ import annotations

import os

from celery.signals import worker_init
from prometheus_client import start_http_server
from ruled import app, slowly  # noqa: F401  # the worker and the test take them from here

from celery_heimdall import metrics


@worker_init.connect
def serve(**_):
    metrics.install(app=app)
    start_http_server(int(os.environ["METERED_PORT"]), addr="127.0.0.1")
