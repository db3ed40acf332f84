"""What the configuration of a Celery application says to all of our packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..urls import find_redis_url

if TYPE_CHECKING:
    from celery import Celery


def redis_url_of(app: Celery, prefix: str) -> str:
    """The Redis that one of our packages uses: `find_redis_url` over the application's settings.

    Args:
        app: The application.
        prefix: The package's prefix, such as ``"ranch"``.

    Raises:
        InvalidParameter: ``<prefix>_redis_url`` or ``toolkit_redis_url`` is set and is no Redis URL.
        ToolkitError: No setting names a Redis.
    """
    # `app.conf.get` does not see the variables CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
    return find_redis_url(lambda key: getattr(app.conf, key, None), prefix)
