"""What Django reads first: the application's name and label."""
# mypy: disable-error-code="import-untyped,misc"
# Django ships no types.

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ShowcaseConfig(AppConfig):
    """``celery_showcase_presets.django`` in ``INSTALLED_APPS``."""

    name = "celery_showcase_presets.django"
    label = "celery_showcase"
    verbose_name = _("Celery")
    # The model has no table, so that this only keeps Django's check of primary keys quiet.
    default_auto_field = "django.db.models.BigAutoField"
