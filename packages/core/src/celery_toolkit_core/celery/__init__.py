"""What the leaves need of Celery, written once; the only folder of core that imports celery (extra ``[celery]``)."""

from __future__ import annotations
