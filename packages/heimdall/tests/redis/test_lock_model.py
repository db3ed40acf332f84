"""The scripts of one lock against a plain model, in every order in which callers and workers may run them."""

from __future__ import annotations

from celery import Celery
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from celery_heimdall import HeimdallTask
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.unique import lock_of

IDS = st.sampled_from(["a", "b", "c"])


class OneLock(RuleBasedStateMachine):
    """The model.

    `queued` was accepted, when `tied` only for as long as its body's lease; `former` was, until its worker died, and is
    `owed` a run as soon as another takes the key; `runner` is the (id, token) whose body runs; `ended` ended last.
    """

    task: HeimdallTask

    def __init__(self):
        super().__init__()
        self.task.heimdall_store.client.flushall()
        self.lock = lock_of(self.task, "one")
        self.queued = self.former = self.runner = self.ended = None
        self.owed = set()
        self.tied = False
        self.fence = self.deliveries = 0
        self.parked = set()

    def accept(self, task_id, tied):
        if self.former not in (None, task_id):
            self.owed.add(self.former)
        self.queued, self.former, self.tied = task_id, None, tied

    def claim(self, task_id, token):
        return Claim(self.task, Call(self.task), "one", task_id, 0, token)

    @rule(task_id=IDS)
    def submit(self, task_id):
        answer = self.lock.reserve(task_id, 0, 60)
        assert (answer.holder is None) == (self.queued in (None, task_id))
        if answer.holder is None:
            self.accept(task_id, tied=False)
            if self.ended == task_id:
                self.ended = None
        else:
            assert answer.holder == self.queued

    @rule(task_id=IDS)
    def fail_to_publish(self, task_id):
        # Not by what people are shown: that says "running" as long as a body of another runs.
        reserved = self.task.heimdall_store.client.hexists(self.lock.key, "reserved_until_ms")
        self.lock.cancel(task_id)
        if reserved and self.queued == task_id:
            self.queued = None

    @rule(task_id=IDS)
    def confirm(self, task_id):
        self.task.heimdall_store.run("confirm", [self.lock.key], [task_id, 0])

    @rule(task_id=IDS)
    def deliver(self, task_id):
        self.deliveries += 1
        token = f"{task_id}/{self.deliveries}"
        options = {"woken": False, "queue": "q", "message": b"m", "later": False, "join": False, "holder": ""}
        verdict, *rest = self.claim(task_id, token).enter(**options)
        if task_id in self.parked:
            assert (verdict, rest) == ("drop", ["kept"])
        elif self.ended == task_id:
            assert (verdict, rest) == ("drop", ["ended"])
        elif self.queued not in (None, task_id) and task_id not in self.owed:
            assert (verdict, rest) == ("duplicate", [self.queued])
        elif self.runner is not None:
            assert verdict == "parked"
            self.parked.add(task_id)
        else:
            assert verdict == "run"
            assert rest[0] > self.fence
            self.runner, self.fence = (task_id, token), rest[0]
            if self.queued in (None, task_id):
                self.accept(task_id, tied=True)

    @precondition(lambda self: self.runner)
    @rule(outcome=st.sampled_from(["success", "failure", "retry", "revoked"]))
    def end(self, outcome):
        task_id, token = self.runner
        comes_back = outcome == "retry"
        if self.queued == task_id:
            self.tied = self.tied and not comes_back
        for _ in range(2):  # a lost answer is asked for again
            self.claim(task_id, token).finish(outcome, comes_back=comes_back)
        self.runner = None
        if not comes_back:
            self.ended = task_id
            self.owed.discard(task_id)
            if self.queued == task_id:
                self.queued = None

    @rule(task_id=IDS)
    def end_of_a_stranger(self, task_id):
        """Whoever is not the runner frees nothing of the runner's right to run."""
        if self.runner is None or self.runner[0] != task_id:
            return
        self.claim(task_id, f"{task_id}/0").finish("ignored", comes_back=False)

    @precondition(lambda self: self.runner)
    @rule()
    def worker_dies(self):
        """The end of a lease, without the wait for it."""
        self.task.heimdall_store.client.hset(self.lock.key, "running_until_ms", 0)
        if self.queued == self.runner[0] and self.tied:
            self.queued, self.former = None, self.queued
        self.runner = None


def test_at_most_one_holder_in_any_order_of_events(redis_url):
    app = Celery("model", broker="memory://", set_as_current=False)
    app.conf.heimdall_redis_url = redis_url

    @app.task(base=HeimdallTask, heimdall={"unique": True, "key": "one"}, name="one", shared=False)
    def one():
        return None

    app.finalize()
    OneLock.task = app.tasks["one"]
    many = settings(max_examples=30, stateful_step_count=20, deadline=None)
    run_state_machine_as_test(OneLock, settings=many)
    app.close()
