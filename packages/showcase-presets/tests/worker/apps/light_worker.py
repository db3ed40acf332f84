from __future__ import annotations

from celery_showcase_presets import light_app

app = light_app(include=["preset_tasks"])
