from __future__ import annotations

import os

from celery_showcase_presets import heavy_app

app = heavy_app(include=["preset_tasks"])
if "VISIBILITY" in os.environ:
    app.conf.broker_transport_options["visibility_timeout"] = float(os.environ["VISIBILITY"])
if "LETTERS" in os.environ:
    app.conf.showcase_redis_url = os.environ["LETTERS"]
