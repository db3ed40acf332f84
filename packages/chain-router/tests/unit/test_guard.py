"""The last question before a body starts."""

from __future__ import annotations

import pickle
import time
from types import SimpleNamespace

from celery.exceptions import Reject

from celery_chain_router.guard import Gatehouse, Until


def test_a_moment_passes_in_every_process():
    assert pickle.loads(pickle.dumps(Until(time.monotonic() + 60)))()
    assert not Until(time.monotonic())()


def pool_that_runs():
    return SimpleNamespace(apply_async=lambda target, args=(), **options: target(*args))


def test_a_guarded_call_runs_or_is_rejected_with_requeue():
    pool = pool_that_runs()
    gatehouse = Gatehouse(pool)
    with gatehouse.by(lambda: True):
        assert pool.apply_async(divmod, (7, 2)) == (3, 1)
    with gatehouse.by(lambda: False):
        failed, info, _ = pool.apply_async(divmod, (7, 2))
    assert failed == 1
    assert isinstance(info.exception, Reject) or isinstance(info.exception.exc, Reject)


def test_other_calls_pass():
    pool = pool_that_runs()
    gatehouse = Gatehouse(pool)
    assert pool.apply_async(divmod, (7, 2)) == (3, 1)
    with gatehouse.by(lambda: False):
        pool.apply_async(divmod, (7, 2))
        # Of one guard one call.
        assert pool.apply_async(divmod, (7, 2)) == (3, 1)
