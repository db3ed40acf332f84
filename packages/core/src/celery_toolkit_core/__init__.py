"""Hashing and Redis primitives: what the packages of Celery Toolkit stand on, of use without Celery as well.

Import from the module that holds the noun: ``from celery_toolkit_core.leases import Leases``.
"""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("celery-toolkit-core")
