"""Send orders of five customers and see that each customer stays on one worker.

``python -m celery_chain_router.examples.simple_example`` uses the broker of `tasks` and the workers that run there. It
starts what is missing by itself, for the time of the example: a private Redis, and any of the three workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_core.errors import ToolkitError
from celery_toolkit_core.local_server import discover

if TYPE_CHECKING:
    from collections.abc import Iterator

CUSTOMERS = ("c101", "c102", "c103", "c104", "c105")

#: Seconds for one result; a worker that has just been started needs some.
TIMEOUT = 60.0


def main() -> int:
    """Run the example; 0 when every customer stayed on one worker."""
    with ExitStack() as stack:
        if not os.environ.get("CELERY_BROKER_URL"):
            try:
                found = stack.enter_context(discover(default_port=True))
            except ToolkitError as error:
                print(f"simple_example: {error}", file=sys.stderr)
                return 1
            print(f"Redis: {found.origin}")
            os.environ["REDIS_URL"] = found.url
        # Only now: the module reads the environment.
        from celery_chain_router.examples import tasks

        running = _consumed_queues(tasks.app)
        for name in tasks.WORKERS:
            if name in running:
                print(f"{name}: runs already")
            else:
                print(f"{name}: started for this example")
                stack.enter_context(_worker(name))
        return _show(tasks)


def _show(tasks: Any) -> int:
    seen: defaultdict[str, set[str]] = defaultdict(set)
    results = []
    for order in range(4):
        for customer in CUSTOMERS:
            results.append((customer, tasks.process_order.delay(order_id=f"o{order}", customer_id=customer)))
    for customer in CUSTOMERS:
        # By position: the router finds the argument through the task's signature.
        results.append((customer, tasks.send_notification.delay(customer, "on its way")))
    for customer, result in results:
        seen[customer].add(result.get(timeout=TIMEOUT))
    for customer, workers in seen.items():
        print(f"customer {customer}: 5 tasks on {', '.join(sorted(workers))}")
    together = all(workers == {tasks.router.get_worker_for_key(customer)} for customer, workers in seen.items())
    print("Every customer stayed on one worker." if together else "A customer was spread over several workers!")
    return 0 if together else 1


def _consumed_queues(app: Any) -> set[str]:
    answers = app.control.inspect(timeout=1.0).active_queues() or {}
    return {queue["name"] for queues in answers.values() for queue in queues}


@contextmanager
def _worker(name: str) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "celery_chain_router.examples.tasks", "worker"]
    command += ["-n", f"{name}@%h", "-Q", name, "-c", "1", "-l", "ERROR"]
    process = start_bound(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        end_bound(process)


if __name__ == "__main__":
    sys.exit(main())
