"""Real servers, real workers and a cutting proxy for the tests of Celery Toolkit."""

from __future__ import annotations

from .polling import eventually

__all__ = ["eventually"]
