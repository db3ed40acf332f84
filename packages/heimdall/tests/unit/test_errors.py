from __future__ import annotations

import json
import pickle

import pytest
from celery import Celery

from celery_heimdall import AlreadyQueuedError, HeimdallError, LimitExceeded, LimitRefused
from celery_toolkit_core.limits import LimitReached


def test_the_error_names_the_holder_and_the_time_and_pickles():
    error = pickle.loads(pickle.dumps(AlreadyQueuedError(expires_in=12.5, likely_culprit="abc")))
    assert (error.likely_culprit, error.expires_in) == ("abc", 12.5)
    assert "abc" in str(error)
    assert "12.5" in str(error)
    assert isinstance(error, HeimdallError)
    assert pickle.loads(pickle.dumps(LimitRefused("no", task="t"))).task == "t"


def test_a_full_limit_names_itself_and_the_time_and_is_the_error_of_core_too():
    error = pickle.loads(pickle.dumps(LimitExceeded(("api",), 2.5)))
    assert (error.blocked_by, error.retry_after) == (("api",), 2.5)
    assert "api" in str(error)
    assert isinstance(error, (HeimdallError, LimitReached))


@pytest.mark.parametrize(
    "error", [AlreadyQueuedError(12.5, "abc"), LimitExceeded(("api",), 2.5)], ids=["queued", "limit"]
)
def test_the_data_of_an_error_outlives_a_result_backend_that_writes_json(error):
    app = Celery("errors", backend="cache+memory://", set_as_current=False)
    kept = json.loads(json.dumps(app.backend.prepare_exception(error, serializer="json")))
    again = app.backend.exception_to_python(kept)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    app.close()
