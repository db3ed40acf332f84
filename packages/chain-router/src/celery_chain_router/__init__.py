"""Same key, same Celery worker: routing by consistent hashing."""

from __future__ import annotations

from importlib.metadata import version

from .errors import ChainRouterError, WorkerFileError, WorkerNameTaken
from .router import ChainRouter
from .worker import on_worker_init as _on_worker_init  # noqa: F401  # a worker finds its router by this signal

__all__ = ["ChainRouter", "ChainRouterError", "WorkerFileError", "WorkerNameTaken", "__version__"]

__version__ = version("celery-toolkit-chain-router")
