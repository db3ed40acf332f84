from __future__ import annotations

import pickle

from celery_heimdall import AlreadyQueuedError, HeimdallError, LimitRefused


def test_the_error_names_the_holder_and_the_time_and_pickles():
    error = pickle.loads(pickle.dumps(AlreadyQueuedError(expires_in=12.5, likely_culprit="abc")))
    assert (error.likely_culprit, error.expires_in) == ("abc", 12.5)
    assert "abc" in str(error)
    assert "12.5" in str(error)
    assert isinstance(error, HeimdallError)
    assert pickle.loads(pickle.dumps(LimitRefused("no", task="t"))).task == "t"
