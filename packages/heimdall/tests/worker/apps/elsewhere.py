"""The application of `guarded` with a task that keeps its locks and limits in a Redis of its own."""

from __future__ import annotations

import os

from guarded import app, body

from celery_heimdall import HeimdallTask, RateLimit, Unique
from celery_toolkit_core.connection import connect


class Elsewhere(HeimdallTask):
    abstract = True

    def setup_redis(self):
        return connect(os.environ["ELSEWHERE"])


@app.task(bind=True, base=Elsewhere, unique=Unique(by="key"), limits=[RateLimit("2/2s")], name="elsewhere")
def elsewhere(self, key, seconds=0.0):
    return body(self, key, seconds)
