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
