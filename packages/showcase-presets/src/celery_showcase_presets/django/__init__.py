"""The Django application: dead letters in the admin, and the tour as a management command.

Add ``celery_showcase_presets.django`` to ``INSTALLED_APPS``; needs the extra ``[django]``.
"""

from __future__ import annotations
