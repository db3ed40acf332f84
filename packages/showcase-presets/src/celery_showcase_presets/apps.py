"""The three applications: one that publishes everything, one for each pool of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery
from celery.app.registry import TaskRegistry

from .presets import POOLS, apply_presets
from .tasks import HeavyTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tasks import Pool

__all__ = ["heavy_app", "light_app", "publisher_app"]


# Celery's own tasks, and the tickets of ranch: every pool needs them.
_INFRASTRUCTURE = ("celery.", "celery_ranch.")


class PoolRegistry(TaskRegistry):
    """Tasks of one pool; those of the other can be looked up by name, to send them, and are not in the registry.

    A worker takes what iterating over the registry shows, so it refuses a message that is not of its pool.
    """

    pool: ClassVar[Pool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._foreign: dict[str, Any] = {}

    def __setitem__(self, name: str, task: Any) -> None:
        if self._own(task):
            super().__setitem__(name, task)
        else:
            self._foreign[name] = task

    def __missing__(self, name: str) -> Any:
        try:
            return self._foreign[name]
        except KeyError:
            raise self.NotRegistered(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The task of that name, of whichever pool."""
        return super().get(name) or self._foreign.get(name, default)

    def _own(self, task: Any) -> bool:
        raise NotImplementedError


class HeavyRegistry(PoolRegistry):
    """Heavy tasks, and what Celery and our other packages bring along."""

    pool: ClassVar[Pool] = "heavy"

    def _own(self, task: Any) -> bool:
        return isinstance(task, HeavyTask) or task.name.startswith(_INFRASTRUCTURE)


class LightRegistry(PoolRegistry):
    """Light tasks and those without a preset, whose messages reach the light queue."""

    pool: ClassVar[Pool] = "light"

    def _own(self, task: Any) -> bool:
        return not isinstance(task, HeavyTask)


class PublisherApp(Celery):
    """Knows all tasks and sends them; meant for the web process, beat and scripts."""


class HeavyApp(Celery):
    """Runs heavy tasks only."""

    registry_cls = f"{__name__}:HeavyRegistry"


class LightApp(Celery):
    """Runs light tasks only."""

    registry_cls = f"{__name__}:LightRegistry"


def publisher_app(
    main: str = "publisher",
    *,
    broker: str | None = None,
    backend: str | None = None,
    include: Sequence[str] = (),
    longest_task: float | None = None,
    **settings: Any,
) -> Celery:
    """An application that knows all tasks, to send them, chain them, and schedule them with beat.

    Args:
        main: The application's name.
        broker: URL of the broker; by default ``CELERY_BROKER_URL``.
        backend: URL of the result backend; by default ``CELERY_RESULT_BACKEND``, else the next database of a Redis
            broker.
        include: Modules with tasks. Give all three applications the same.
        longest_task: See `apply_presets`; the same number for all three.
        **settings: Celery settings that win over the presets.
    """
    return _build(PublisherApp, main, broker, backend, include, None, longest_task, settings)


def heavy_app(
    main: str = "heavy",
    *,
    broker: str | None = None,
    backend: str | None = None,
    include: Sequence[str] = (),
    longest_task: float | None = None,
    **settings: Any,
) -> Celery:
    """An application for workers that run tasks of `HeavyTask` and nothing else; arguments as in `publisher_app`."""
    return _build(HeavyApp, main, broker, backend, include, "heavy", longest_task, settings)


def light_app(
    main: str = "light",
    *,
    broker: str | None = None,
    backend: str | None = None,
    include: Sequence[str] = (),
    longest_task: float | None = None,
    **settings: Any,
) -> Celery:
    """An application for workers that run everything but tasks of `HeavyTask`; arguments as in `publisher_app`."""
    return _build(LightApp, main, broker, backend, include, "light", longest_task, settings)


def _build(
    kind: type[Celery],
    main: str,
    broker: str | None,
    backend: str | None,
    include: Sequence[str],
    pool: Pool | None,
    longest_task: float | None,
    settings: dict[str, Any],
) -> Celery:
    app = kind(main, broker=broker, backend=backend, include=list(include))
    apply_presets(app, pool=pool, longest_task=longest_task, **settings)
    if pool is not None:

        def leave_other_queues(sender: Celery, **kwargs: Any) -> None:
            # All queues are declared, for routing. Not select(): that would look like the operator's -Q, after which
            # a router may not add a queue of its own.
            sender.amqp.queues.deselect([name for name in POOLS if name != pool])

        app.on_after_finalize.connect(leave_other_queues, weak=False)
    return app
