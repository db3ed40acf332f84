"""Three applications over one set of settings: one that sends, and one for each pool of workers."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

from celery import Celery
from django.conf import settings

from celery_showcase_presets import heavy_app, light_app, publisher_app


def _shared() -> dict[str, object]:
    """Every ``CELERY_*`` of the Django settings, as Celery's own names."""
    found = {name[7:].lower(): getattr(settings, name) for name in dir(settings) if name.startswith("CELERY_")}
    return {
        "broker": found.pop("broker_url"),
        "backend": found.pop("result_backend"),
        "include": ["shop.tasks"],
        **found,
    }


heavy: Celery = heavy_app("shop-heavy", **_shared())
light: Celery = light_app("shop-light", **_shared())
#: The web process and beat: knows and sends everything. Made last, so that it is the current one.
app: Celery = publisher_app("shop", **_shared())
app.set_default()
