"""Options that contradict each other are refused with a reason: at decoration, or when a worker starts."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_chain_router import ChainRouter
from celery_heimdall import Concurrency, HeimdallTask, RateLimit, Unique
from celery_ranch import RanchTask
from celery_showcase_presets import HeavyTask, LightTask
from celery_toolkit_core.errors import InvalidParameter


class Both(HeavyTask, HeimdallTask, RanchTask):
    abstract = True


def declare(**options):
    app = Celery("contradictions", set_as_current=False)

    @app.task(base=Both, shared=False, name="job", **options)
    def job(customer, page=1):
        """A task of all three bases."""

    app.finalize()
    return app.tasks["job"]


@pytest.mark.parametrize(
    ("options", "named", "reason"),
    [
        ({"unique": Unique(on_conflict="join"), "ignore_result": True}, "on_conflict", "no result to join"),
        ({"heimdall": {"unique": True}, "unique": Unique()}, "unique", "say it once"),
        ({"heimdall": {"unique_timeout": 60}}, "unique_timeout", "'unique': True"),
        (
            {"heimdall": {"unique_wait_for_expiry": True}, "unique": Unique()},
            "unique_wait_for_expiry",
            "'unique': True",
        ),
        ({"heimdall": {"unique_raises": True, "times": 1, "per": 1}}, "unique_raises", "'unique': True"),
        ({"limits": [RateLimit("10/s"), RateLimit("100/m")]}, "limits", "give it a name"),
        ({"limits": [Concurrency(2, name="api"), Concurrency(3, name="api")]}, "limits", "give it a name"),
        ({"heimdall": {"rate_limit": "1/s"}, "limits": [RateLimit("5/m")]}, "limits", "give it a name"),
        ({"limits": [RateLimit("5/m", cost=6)]}, "cost", "limit of 5"),
        ({"lru_key": "client"}, "lru_key", "no argument of that name"),
        ({"reject_on_worker_lost": True}, "reject_on_worker_lost", "max_kills"),
        ({"soft_time_limit": 100, "time_limit": 50}, "soft_time_limit", "stay below"),
    ],
)
def test_a_task_whose_options_contradict_each_other_is_not_made(options, named, reason):
    with pytest.raises(InvalidParameter, match=reason) as refused:
        declare(**options)
    assert refused.value.parameter == named


@pytest.mark.parametrize(
    "options",
    [
        {"unique": Unique(on_conflict="join")},
        {"heimdall": {"unique_raises": True}, "unique": Unique()},
        {"heimdall": {"unique": False, "unique_timeout": 60}},
        {"limits": [RateLimit("10/s"), RateLimit("100/m", name="minute"), Concurrency(2)]},
        {"limits": [RateLimit("5/m", by="customer"), RateLimit("50/m", name="all")]},
        {"limits": [RateLimit("5/m", cost=6, paused=True)]},
        {"limits": [RateLimit("5/m", cost=5)], "lru_key": "customer"},
    ],
)
def test_what_fits_together_is_taken(options):
    assert declare(**options).name == "job"


def test_a_task_belongs_to_one_pool():
    with pytest.raises(InvalidParameter, match="take HeavyTask or LightTask"):
        type("Mixed", (HeavyTask, LightTask), {"abstract": True})


@pytest.mark.parametrize(
    "options", [{"mode": "partition", "virtual_nodes": 10}, {"partitions": 8}, {"balance": 1.1, "virtual_nodes": 10}]
)
def test_a_router_takes_the_options_of_its_mode_only(options):
    with pytest.raises(InvalidParameter, match=r"leave it out|not both"):
        ChainRouter(**options)


def test_a_worker_does_not_start_with_two_routers(celery_worker_process):
    worker = celery_worker_process("contradicting_app", concurrency=1, env={"FAULT": "routers"}, wait=False)
    worker.wait_for_log("one application has one ChainRouter")
    assert worker.wait() != 0


def test_a_worker_warns_of_options_that_nobody_would_see(celery_worker_process):
    worker = celery_worker_process("contradicting_app", concurrency=1, env={"FAULT": "bases"})
    for option, base in (("heimdall", "HeimdallTask"), ("lru_key", "RanchTask")):
        worker.wait_for_log(f"option_without_effect task=stray option={option} needs_base={base}")
