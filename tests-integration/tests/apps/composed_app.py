"""One application in several roles: ``publisher``, ``heavy``, ``light``, and workers that share keys.

Those are ``ring``, of the heavy pool, and ``light-ring``.

With ``ROUTER_MODE=partition`` those workers share partitions instead.
"""

from __future__ import annotations

import os

from celery_chain_router import ChainRouter
from celery_showcase_presets import heavy_app, light_app, publisher_app
from celery_showcase_presets.routes import preset_queue

MAKE = {"publisher": publisher_app, "heavy": heavy_app, "light": light_app, "ring": heavy_app, "light-ring": light_app}
LEASE = 3.0


def pool_first(name, *args, **kwargs):
    return None if name.startswith("ring.") else preset_queue(name, *args, **kwargs) or {"queue": "light"}


def make(role):
    routes = [pool_first]
    if role in ("publisher", "ring", "light-ring"):
        mode = os.environ.get("ROUTER_MODE", "ring")
        routes.append(ChainRouter(routing_key="customer", mode=mode, **({"partitions": 4} if mode != "ring" else {})))
    return MAKE[role](
        role,
        include=["composed_tasks"],
        task_routes=routes,
        worker_prefetch_multiplier=1,
        chain_router_lease=LEASE,
        heimdall_lease=LEASE,
        heimdall_sweep=1.0,
        ranch_lease=LEASE,
    )


app = make(os.environ.get("ROLE", "publisher"))
