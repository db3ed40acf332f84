"""A model without a table: what the admin hangs its pages and permissions on."""
# mypy: disable-error-code="import-untyped,misc"
# Django ships no types.

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class DeadLetter(models.Model):
    """A dead letter; it lives where `celery_showcase_presets.dead_letters` keeps it, never in the database."""

    class Meta:
        """Who may look, who may remove, and who may send again."""

        managed = False
        default_permissions = ("view", "delete")
        permissions: ClassVar = [("replay_deadletter", _("Can send dead letters again"))]
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
