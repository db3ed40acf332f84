"""An application with a periodic task that has no route."""

from __future__ import annotations

from celery_showcase_presets import publisher_app

app = publisher_app(include=["preset_tasks"])
app.conf.beat_schedule = {"tick": {"task": "tick", "schedule": 0.5}}
