"""What a task and a call may say about fairness, checked once at the edge."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from celery_toolkit_core import parameters
from celery_toolkit_core.canonical import bound_arguments
from celery_toolkit_core.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from .utils.lru_tracker import LRUKeyMetadata

    WeightFunction = Callable[[str, LRUKeyMetadata], float]

#: Weights and costs are numbers in this range; their product is what one turn costs.
SMALLEST, LARGEST = 1e-6, 1e6

#: What becomes of a task whose client has as many waiting as its limit allows.
OnFull = Literal["raise", "block", "drop"]

#: Attributes of a task that are ours and begin with ``lru_``.
_ATTRIBUTES = ("lru_key", "lru_cost")
#: What `RanchTask` itself offers under that prefix.
_METHODS = ("lru_delay", "lru_apply_async")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options of one task.

    Attributes:
        key: Name of the argument that holds the client's key, a function of the call's arguments, or None.
        cost: What one turn costs: a number, a function of the call's arguments, or ``"runtime"``.
        weight_function: ``f(lru_key, metadata) -> weight``, or None.
        max_backlog: Most tasks of one client that may wait, or None.
        on_full: What becomes of one more: ``raise`` an error, ``block`` the caller, ``drop`` it.
    """

    key: str | Callable[..., Any] | None = None
    cost: float | str | Callable[..., Any] = 1.0
    weight_function: WeightFunction | None = None
    max_backlog: int | None = None
    on_full: OnFull = "raise"

    @classmethod
    def of(cls, task: type[Any]) -> TaskOptions:
        """Read and check the options of a task class.

        Raises:
            InvalidParameter: An option is unknown or impossible.
        """
        for name in dir(task):
            if name.startswith("lru_") and name not in (*_ATTRIBUTES, *_METHODS):
                near = parameters.nearest(name, _ATTRIBUTES)
                raise InvalidParameter(name, getattr(task, name), f"there is no such option{near}")
        key = _plain(task, "lru_key")
        if key is not None and not callable(key):
            parameters.text("lru_key", key)
            names = _argument_names(task)
            if names is not None and key not in names:
                near = parameters.nearest(key, names)
                raise InvalidParameter("lru_key", key, f"the task has no argument of that name{near}")
        cost = _plain(task, "lru_cost")
        weight_function = _plain(task, "weight_function")
        if weight_function is not None and not callable(weight_function):
            raise InvalidParameter("weight_function", weight_function, "give a function of (lru_key, metadata)")
        limit = _plain(task, "max_backlog")
        return cls(
            key=key,
            cost=1.0 if cost is None else cost if callable(cost) else check_cost("lru_cost", cost),
            weight_function=weight_function,
            max_backlog=None if limit is None else parameters.count("max_backlog", limit),
            on_full=cast("OnFull", parameters.one_of("on_full", _plain(task, "on_full"), get_args(OnFull))),
        )

    def key_of(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The client's key as this call's arguments have it; None when the task has no such option."""
        if self.key is None:
            return None
        if callable(self.key):
            return check_key(self.key(*args, **kwargs))
        return check_key(bound_arguments(run, args, kwargs)[self.key])

    def cost_of(self, given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | str:
        """The cost of a call, from its own option or the task's."""
        if given is None:
            given = self.cost
        if callable(given):
            given = given(*args, **kwargs)
        return check_cost("lru_cost", given)


def delay_options(priority_weight: Any, expiry: Any) -> dict[str, Any]:
    """The two options of `lru_delay` as options of `apply_async`."""
    options: dict[str, Any] = {}
    if priority_weight is not None:
        options["lru_weight"] = check_weight("priority_weight", priority_weight)
    if expiry is not None:
        options["expires"] = parameters.seconds("expiry", expiry)
    return options


def check_key(value: Any) -> str:
    """A client's key in its house form; an int stands for its text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return parameters.text("lru_key", value)


def check_weight(parameter: str, value: Any) -> float:
    """A weight or a cost."""
    number = parameters.positive(parameter, value)
    if not SMALLEST <= number <= LARGEST:
        raise InvalidParameter(parameter, value, f"give a number from {SMALLEST:g} to {LARGEST:g}")
    return number


def check_cost(parameter: str, value: Any) -> float | str:
    """A cost: a number or ``"runtime"``."""
    if value == "runtime":
        return "runtime"
    if isinstance(value, str):
        raise InvalidParameter(parameter, value, 'give a number above 0, or "runtime"')
    return check_weight(parameter, value)


def _plain(task: type[Any], name: str) -> Any:
    """An attribute as it was written: a function is not turned into a method."""
    value = inspect.getattr_static(task, name, None)
    return value.__func__ if isinstance(value, staticmethod) else value


def _argument_names(task: type[Any]) -> list[str] | None:
    signature = inspect.signature(task.run)
    if any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
        return None
    return list(signature.parameters)
