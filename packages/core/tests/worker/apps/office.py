"""A process that runs a job only while it is elected: ``python office.py <redis url> <interval in seconds>``."""

from __future__ import annotations

import sys
import time

from celery_toolkit_core.connection import connect
from celery_toolkit_core.keeper import Elected, Keeper
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_core.leases import Leases
from celery_toolkit_testkit import log_event

if __name__ == "__main__":
    url, interval = sys.argv[1], float(sys.argv[2])
    keeper = Keeper("office")
    office = Elected(Leases(connect(url), KeySpace("office")), "sweeper")
    keeper.every(interval, lambda: log_event(swept=True), elected=office, at_once=True)
    keeper.start()
    while True:
        time.sleep(3600)
