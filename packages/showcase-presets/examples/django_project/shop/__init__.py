"""A small shop: the example project of celery-toolkit-showcase-presets."""

from __future__ import annotations

# Django imports this first, so that `shared_task` and the admin find the application.
from .celery import app as celery_app

__all__ = ["celery_app"]
