"""A production Celery in one install: task bases, applications and settings with their reasons."""

from __future__ import annotations

from importlib.metadata import version

from .apps import heavy_app, light_app, publisher_app
from .presets import apply_presets
from .tasks import HeavyBase, HeavyTask, LightTask

__all__ = ["HeavyBase", "HeavyTask", "LightTask", "apply_presets", "heavy_app", "light_app", "publisher_app"]

__version__ = version("celery-toolkit-showcase-presets")
