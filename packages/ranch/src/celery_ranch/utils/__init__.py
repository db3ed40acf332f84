"""Names that celery-ranch had here."""

from __future__ import annotations
