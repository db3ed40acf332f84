"""The page at the end of a tour, in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
for piece in ("celery_heimdall", "celery_ranch", "celery_chain_router"):
    pytest.importorskip(piece, reason="the tour shows all pieces")

pytestmark = pytest.mark.browser


def test_the_page_of_a_tour_is_readable_on_a_phone_and_in_the_dark(tmp_path, redis_url, browser):
    command = [sys.executable, "-c", "from celery_showcase_presets.cli import main; main()", "tour", "--no-input"]
    # The chapters with each kind of picture: bars, stairs with a limit, two bars to compare, a table, rings.
    for name in ("bulk", "limit", "fair", "route", "monitor"):
        command += ["--only", name]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)],
        env={**os.environ, "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    browser.driver.get((tmp_path / "report.html").as_uri())
    browser.must_be_readable("report")
    drawn = browser.driver.execute_script(
        "return ['.lane i', '.stairs path', '.meter i', '.ring path', 'figure td'].map(s =>"
        " [...document.querySelectorAll(s)].filter(e => e.getBoundingClientRect().width > 0).length)"
    )
    assert all(drawn), drawn
