"""The example project as its users run it: two workers, beat, a web server, and a browser."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_testkit import eventually

pytest.importorskip("django", reason="the extra [django] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

pytestmark = pytest.mark.browser

PROJECT = Path(__file__).parents[2] / "examples/django_project"
PASSWORD = secrets.token_urlsafe(12)


class Shop:
    """The example project in a place of its own."""

    def __init__(self, folder, broker):
        self.folder = folder
        self.processes = {}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "SHOP_"))},
            "SHOP_DATA": str(folder),
            "SHOP_BROKER_URL": broker,
            "SHOP_COUNT_EVERY": "1",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "C_FORCE_ROOT": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def manage(self, *arguments):
        """Run a command of manage.py to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name, *command):
        """Start a process that ends with the test."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = start_bound(
                [sys.executable, *command],
                cwd=PROJECT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, name):
        """What a process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def end(self):
        """End everything that was started."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            end_bound(process)


@pytest.fixture
def shop(tmp_path, redis_url):
    shop = Shop(tmp_path, redis_url)
    shop.manage("migrate", "-v0")
    shop.manage("createsuperuser", "--no-input", "--username", "boss", "--email", "boss@example.org")
    celery = ("-m", "celery", "-A")
    quiet = ("--without-gossip", "--without-mingle")
    shop.start("heavy", *celery, "shop.celery:heavy", "worker", "-n", "heavy@%h", "-c", "1", *quiet)
    shop.start("light", *celery, "shop.celery:light", "worker", "-n", "light@%h", "-c", "1", *quiet)
    shop.start("beat", *celery, "shop", "beat", "--pidfile=", "-l", "INFO")
    # Port 0: the system chooses one that is free, and the log says which.
    shop.start("web", "manage.py", "runserver", "--noreload", "127.0.0.1:0")
    yield shop
    shop.end()


@pytest.fixture
def admin(shop, browser):
    """A function that opens a page of the admin as the boss."""
    found = eventually(lambda: re.search(r"at (http://[\d.:]+)/", shop.log("web")), 60, "the web server is there")

    def go(path=""):
        browser.driver.get(f"{found[1]}/admin/{path}")
        return browser.text()

    go()
    field = browser.driver.find_element
    field("name", "username").send_keys("boss")
    field("name", "password").send_keys(PASSWORD)
    field("css selector", "[type=submit]").click()
    browser.must_show("Dead letters")
    return go


def test_the_admin_shows_periodic_tasks_results_and_dead_letters_and_the_button_replays(shop, admin, browser):
    prices = shop.folder / "prices.csv"
    shop.manage("shell", "-c", f"from shop.tasks import import_prices; import_prices.delay({str(prices)!r})")

    # Beat has written the schedule into the database, fires it, and a worker of the light pool runs it.
    eventually(lambda: "count the open orders" in admin("django_celery_beat/periodictask/"), 60, "beat's list")
    eventually(lambda: "shop.tasks.count_orders" in admin("django_celery_results/taskresult/"), 60, "a result")
    browser.must_show("SUCCESS")
    browser.look(1280, dark=False)
    admin("django_celery_beat/periodictask/")
    assert not browser.errors()
    browser.shoot("beat")

    # What failed for good is a letter, with what one needs to know.
    eventually(lambda: "shop.tasks.import_prices" in admin("celery_showcase/deadletter/"), 60, "the letter")
    browser.must_be_readable("letters", "#content")
    browser.driver.find_element("link text", "shop.tasks.import_prices").click()
    browser.must_show("Traceback", "FileNotFoundError", "prices.csv")
    browser.must_be_readable("letter", "#content")

    # The cause is mended, the button pressed: the same task runs, and succeeds.
    task_id = browser.driver.find_element("css selector", ".letter-facts code").text
    prices.write_text("a,1\nb,2\n")
    browser.driver.find_element("xpath", "//button[contains(., 'Send again')]").click()
    browser.must_show("1 message was sent again", "No dead letters here")
    eventually(lambda: _result(shop, task_id) == "SUCCESS 2", 60, "the task has run")
    browser.must_be_readable("empty", "#content")


def _result(shop, task_id):
    code = (
        "from django_celery_results.models import TaskResult;"
        f"t = TaskResult.objects.get(task_id={task_id!r}); print(t.status, t.result)"
    )
    return shop.manage("shell", "-v0", "-c", code).strip()
