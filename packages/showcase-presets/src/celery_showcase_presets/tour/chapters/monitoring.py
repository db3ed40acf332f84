"""The last chapter: the figures that a monitor gets are those of what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from ...metrics import Exporter
from .. import pictures, tasks

if TYPE_CHECKING:
    from ..rabbit import Management
    from ..stage import Stage

_GREETINGS = 8


def watched(stage: Stage) -> list[str]:
    """The exporter beside the workers: queues, ends of tasks, dead letters, who is online."""
    stage.have("light", "heavy")
    with Exporter(stage.app, port=0) as exporter:
        url = f"http://127.0.0.1:{exporter.port}/metrics"
        stage.screen.say(f"metrics for Prometheus: {url} (yours: celery -A proj showcase metrics)")

        def heard() -> bool:
            stage.app.control.broadcast("heartbeat")
            return exporter.online >= 2

        stage.wait("it hears both workers", heard)
        sent = [stage.send(tasks.greet.delay, client=f"guest {number + 1}")[0] for number in range(_GREETINGS)]
        sent += stage.send(tasks.render.delay, "guest 1", stage.plan.delay)
        stage.finish(sent, f"{len(sent)} tasks have run")
        wanted = {
            ("celery_tasks_total", "succeeded", tasks.greet.name): float(_GREETINGS),
            ("celery_tasks_total", "succeeded", tasks.render.name): 1.0,
            ("celery_queue_messages", "heavy"): 0.0,
            ("celery_queue_messages", "light"): 0.0,
            ("celery_dead_letters",): 0.0,
            ("celery_broker_up",): 1.0,
        }
        seen: dict[tuple[str, ...], float] = {}

        def counted() -> bool:
            seen.update(_scrape(url))
            return sum(figure for name, figure in seen.items() if name[0] == "celery_tasks_total") >= len(sent)

        stage.wait("the workers have told it of as many ends", counted)
        wrong = {name: seen.get(name) for name, figure in wanted.items() if seen.get(name) != figure}
        stage.promise("Prometheus was told of each of them, and that no queue holds anything", not wrong, wrong)
    if stage.management:
        _rabbit_page(stage, stage.management)
    stage.screen.say(
        "in your project: celery -A proj showcase queues, showcase status, flower; rules and a dashboard: init"
    )
    rows = [(_readable(name), f"{seen[name]:g}") for name in [*wanted, ("celery_workers_online",)]]
    return [pictures.table(rows, "What Prometheus read")]


def _rabbit_page(stage: Stage, management: Management) -> None:
    stage.screen.say(f"RabbitMQ's own page: {management.url}, user {management.user}")
    stage.promise("RabbitMQ's page is there", "RabbitMQ Management" in management.page(), "another page")
    host = urlsplit(str(stage.app.conf.broker_url)).path[1:]
    queues = {queue["name"]: queue for queue in management.call("GET", f"queues/{host}")}
    kinds = {name: queues[name].get("type") for name in ("heavy", "light") if name in queues}
    stage.promise("it shows both queues, as quorum queues", kinds == {"heavy": "quorum", "light": "quorum"}, kinds)


def _scrape(url: str) -> dict[tuple[str, ...], float]:
    with urlopen(url, timeout=10) as answer:  # noqa: S310  # our own exporter
        text = answer.read().decode()
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _readable(name: tuple[str, ...]) -> str:
    return f"{name[0]} {', '.join(reversed(name[1:]))}".strip()
