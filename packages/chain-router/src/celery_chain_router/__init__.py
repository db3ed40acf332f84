"""Same key, same Celery worker: routing by consistent hashing."""

from __future__ import annotations

from importlib.metadata import version

from .errors import ChainRouterError, WorkerFileError, WorkerNameTaken
from .router import ChainRouter

__all__ = ["ChainRouter", "ChainRouterError", "WorkerFileError", "WorkerNameTaken", "__version__"]

__version__ = version("celery-toolkit-chain-router")
