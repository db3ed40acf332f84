"""The errors of this package, under core's root."""

from __future__ import annotations

from celery_toolkit_core.errors import ToolkitError


class ShowcaseError(ToolkitError):
    """The root of what this package raises on purpose."""


class EffectMissing(ShowcaseError):
    """A chapter of the tour promised an effect that did not happen.

    Attributes:
        promise: The sentence that did not come true.
        seen: What was there instead.
    """

    promise: str
    seen: str


class PieceMissing(ShowcaseError):
    """The tour needs a package that is not installed.

    Attributes:
        packages: The import names that were not found.
    """

    packages: list[str]


class LettersInUse(ShowcaseError):
    """Somebody else has the dead letters of RabbitMQ in hand.

    Attributes:
        queue: Their queue.
    """

    queue: str


class PortTaken(ShowcaseError):
    """Something else listens on the port.

    Attributes:
        port: The port.
    """

    port: int


class NoManagement(ShowcaseError):
    """RabbitMQ's management API does not tell what was asked.

    Attributes:
        url: Where it was asked, without user and password.
    """

    url: str


class BeatRuns(ShowcaseError):
    """A second beat would send each periodic task twice.

    Attributes:
        pid: The process of the first.
    """

    pid: int


class WrongPool(ShowcaseError):
    """The application runs the tasks of one pool only, and that is the other one.

    Attributes:
        pool: The pool that was asked for.
    """

    pool: str


class NodeTaken(ShowcaseError):
    """A worker with this node name is at work: monitors and remote control could not tell the two apart.

    Attributes:
        node: The name.
    """

    node: str


class FilesInTheWay(ShowcaseError):
    """``init`` would overwrite something.

    Attributes:
        files: What is there, relative to the folder.
    """

    files: list[str]
