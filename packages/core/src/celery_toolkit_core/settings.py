"""Settings of one prefix, read from a mapping such as ``app.conf`` into a typed, frozen dataclass."""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

S = TypeVar("S")


def setting(default: Any, check: Callable[[str, Any], Any]) -> Any:
    """Declare a field of a settings dataclass.

    Example::

        @dataclass(frozen=True)
        class RanchSettings:
            lease: float = setting(30.0, parameters.seconds)
            redis_url: str | None = setting(None, parameters.text)

    Args:
        default: Used as it is when the user sets nothing.
        check: Such as the functions of `celery_toolkit_core.parameters`: takes the setting's full name and the user's
            value, returns the value in its house form or raises `InvalidParameter`.
    """
    return field(default=default, metadata={"check": check})


def read_settings(cls: type[S], prefix: str, read: Callable[[str, Any], Any]) -> S:
    """Read ``<prefix>_<field>`` for each field of `cls`.

    Args:
        cls: A frozen dataclass whose fields were declared with `setting`.
        prefix: The package's prefix, such as ``"ranch"``.
        read: (name, default) -> value; ``app.conf.get`` fits. Called now, so call this when the configuration is
            complete: at first use, never at import.

    Raises:
        InvalidParameter: A value does not pass its check; the error names the setting in full.
    """
    values: dict[str, Any] = {}
    for each in fields(cls):  # type: ignore[arg-type]  # any dataclass; typing has no name for that in 3.10
        name = f"{prefix}_{each.name}"
        value = read(name, each.default)
        unset = value is each.default or value is MISSING
        values[each.name] = each.default if unset else each.metadata["check"](name, value)
    return cls(**values)


def unknown_settings(cls: type[Any], prefix: str, names: Iterable[str]) -> list[tuple[str, str | None]]:
    """The `names` that carry the prefix but are no setting of `cls`, each with the nearest known name.

    Celery takes misspelt settings in silence; a worker warns of these at its start.

    Args:
        cls: The settings dataclass.
        prefix: The package's prefix.
        names: All names that are configured, ours and others'.
    """
    # The prefix, which all share, would make every name look near.
    known = [each.name for each in fields(cls)]
    given = sorted({str(name).lower() for name in names})
    fields_given = [name.removeprefix(f"{prefix}_") for name in given if name.startswith(f"{prefix}_")]
    unknown = []
    for name in fields_given:
        if name not in known and name != "redis_url":
            near = get_close_matches(name, known, n=1)
            unknown.append((f"{prefix}_{name}", f"{prefix}_{near[0]}" if near else None))
    return unknown
