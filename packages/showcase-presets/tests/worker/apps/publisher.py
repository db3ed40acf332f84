"""The application that sends, for the commands."""

from __future__ import annotations

import os

from celery_showcase_presets import publisher_app

app = publisher_app(include=["preset_tasks"])
if "MANAGEMENT_URL" in os.environ:
    app.conf.showcase_management_url = os.environ["MANAGEMENT_URL"]
