"""Real servers, real workers and a cutting proxy for the tests of Celery Toolkit."""

from __future__ import annotations

from .events import EventLog, log_event
from .polling import eventually
from .processes import child_pids, frozen, is_alive
from .proxy import TcpProxy
from .rabbitmq import RabbitServer
from .worker import WorkerProcess

__all__ = [
    "EventLog",
    "RabbitServer",
    "TcpProxy",
    "WorkerProcess",
    "child_pids",
    "eventually",
    "frozen",
    "is_alive",
    "log_event",
]
