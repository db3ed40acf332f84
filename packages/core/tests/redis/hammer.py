"""Eight processes that want to start as often as they can; prints the Redis times (us) at which they were let.

Arguments: the server's URL, how (``limiter``, or ``naive``: count, compare, then add, as one must not), times,
seconds of the window, seconds to run.
"""

from __future__ import annotations

import json
import os
import sys
from uuid import uuid4

import redis

from celery_toolkit_core.connection import connect
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.limits import Limiter, RateLimit

PROCESSES = 8


def moment(client: redis.Redis) -> int:
    seconds, us = client.time()
    return int(seconds) * 1_000_000 + int(us)


def hammer(url: str, how: str, times: int, per: float, lasting: float) -> list[int]:
    client = connect(url)
    limiter, demand = Limiter(client, KeySpace("hammer")), RateLimit((times, per), name="api").demand()
    stamps = []
    end = moment(client) + lasting * 1e6
    while (now := moment(client)) < end:
        if how == "limiter":
            decision = limiter.take([demand], token=uuid4().hex)
            if decision:
                stamps.append(decision.stamp)
        elif client.zcount("naive", now - per * 1e6, "+inf") < times:
            client.zadd("naive", {uuid4().hex: now})
            stamps.append(now)
    return stamps


def main() -> None:
    url, how, times, per, lasting = sys.argv[1:]
    pipes = []
    for _ in range(PROCESSES):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as out:
                json.dump(hammer(url, how, int(times), float(per), float(lasting)), out)
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    stamps = []
    for reading in pipes:
        with os.fdopen(reading) as source:
            stamps += json.load(source)
    for _ in pipes:
        assert os.wait()[1] == 0
    print(json.dumps(sorted(stamps)))


if __name__ == "__main__":
    main()
