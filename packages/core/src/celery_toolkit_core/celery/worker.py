"""What runs in a worker's main process from its start to its end: a bootstep around one keeper."""

from __future__ import annotations

import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from celery.bootsteps import StartStopStep
from celery.exceptions import ImproperlyConfigured

from ..errors import ToolkitError
from ..keeper import Keeper
from ..log import event
from ..settings import unknown_settings
from . import deliveries

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

S = TypeVar("S", bound="WorkerStep")


class ConflictingDistribution(ToolkitError, ImproperlyConfigured):
    """Two installed distributions provide the same import name, and have overwritten each other's files.

    Attributes:
        ours: The distribution of Celery Toolkit.
        other: The older one.
        version: The older one's version.
    """

    ours: str
    other: str
    version: str


class WorkerStep(StartStopStep):
    """A bootstep of the worker's consumer that keeps one `Keeper` alive while bodies may run.

    A broker reconnect stops and starts the steps of the consumer in the same process, and a warm shutdown stops them
    while bodies still run. Neither touches the keeper here: it starts once, and ends when the pool has ended.
    Subclasses say what they need in the class attributes, and override `prepare` and `finish`.
    """

    #: Messages are consumed only after all steps have started, and strategies exist from Tasks on.
    requires = ("celery.worker.consumer.tasks:Tasks",)

    #: Prefix of the settings, such as ``"ranch"``.
    prefix: ClassVar[str]

    #: The settings' dataclass; a worker warns of settings with the prefix that it does not know.
    settings: ClassVar[type[Any] | None] = None

    #: (our distribution, the older one with the same import name); both installed, a worker refuses to start.
    replaces: ClassVar[tuple[str, str] | None] = None

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        if self.replaces:
            refuse_both(*self.replaces)
        self.consumer = consumer
        self.keeper = Keeper(f"{self.prefix}-keeper")
        self._is_prepared = False

    @classmethod
    def of(cls: type[S], consumer: Any) -> S | None:
        """The worker's step of this class; ``None`` where the application did not install it."""
        return next((step for step in consumer.steps if isinstance(step, cls)), None)

    def prepare(self, consumer: Any) -> None:
        """Called once, before the first message and before the keeper starts: give it its jobs here."""

    def finish(self, consumer: Any) -> None:
        """Called once after `prepare`, when the bodies have ended, before the keeper stops: give back what is held."""

    def start(self, consumer: Any) -> None:
        """Start the keeper, unless it runs since before a reconnect."""
        if not self._is_prepared:
            if self.settings is not None:
                warn_of_unknown_settings(consumer.app, self.prefix, self.settings)
            self.prepare(consumer)
            self._is_prepared = True
        self.keeper.start()

    def stop(self, consumer: Any) -> None:
        """Nothing: bodies go on after this, over a reconnect as in a warm shutdown."""

    def terminate(self, consumer: Any) -> None:
        """Nothing either: at a cold shutdown too, the pool ends after the consumer."""

    def shutdown(self, consumer: Any) -> None:
        """The pool has ended, warm or cold: tell what is left, give back what is held, end the keeper."""
        deliveries.end_all()
        if self._is_prepared:  # a worker that fails in an earlier step ends without having begun
            try:
                self.finish(consumer)
            except Exception:
                # The broker's own shutdown steps come after this one.
                logger.exception("%s could not give everything back; it ends with its leases", type(self).__name__)
        self.keeper.stop()


def install(app: Celery, step: type[WorkerStep]) -> None:
    """Let the workers of `app` run `step`, once per worker however often this is called.

    Meant for ``Task.on_bound``, which comes for every task before a worker builds its blueprint.
    """
    app.steps["consumer"].add(step)


def refuse_both(ours: str, other: str) -> None:
    """Refuse to go on when `other`, which has the same import name as `ours`, is installed too.

    Raises:
        ConflictingDistribution: It is.
    """
    try:
        version = metadata.version(other)
    except metadata.PackageNotFoundError:
        return
    raise ConflictingDistribution(
        f"{other} {version} is installed beside {ours}, which replaces it, and they overwrite each other's files; "
        f"run: pip uninstall -y {other} {ours} && pip install {ours}",
        ours=ours,
        other=other,
        version=version,
    )


def warn_of_unknown_settings(app: Celery, prefix: str, settings: type[Any]) -> list[str]:
    """Warn of each setting with the prefix that means nothing, since Celery takes it in silence.

    Returns:
        The names that it warned of.
    """
    namespace: str | None = app.namespace  # type: ignore[attr-defined]  # not in the stubs
    names = [str(name) for name in app.conf]
    if namespace:
        # Django's settings: CELERY_RANCH_LEASE is ranch_lease, and RANCH_LEASE is no setting of Celery's.
        names = [
            name.removeprefix(f"{namespace}_") for name in names if name.startswith(f"{namespace}_") or name.islower()
        ]
    unknown = unknown_settings(settings, prefix, names)
    for name, near in unknown:
        event(logger, logging.WARNING, "unknown_setting", setting=name, did_you_mean=near)
    return [name for name, _ in unknown]
