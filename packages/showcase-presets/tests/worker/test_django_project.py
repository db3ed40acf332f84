"""The example project without a browser: its settings, and the tour from manage.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django", reason="the extra [django] is not installed")

PROJECT = Path(__file__).parents[2] / "examples/django_project"


@pytest.fixture
def manage(tmp_path):
    """Runs a command of the project's manage.py, with these variables."""

    def run(*arguments, **variables):
        own = {"SHOP_DATA": str(tmp_path), "C_FORCE_ROOT": "1", **variables}
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env={**{name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def test_the_tour_runs_from_manage_py_and_its_end_is_the_commands(manage, tmp_path, redis_url, redis_client):
    for piece in ("celery_heimdall", "celery_ranch", "celery_chain_router"):
        pytest.importorskip(piece, reason="the tour shows all pieces")
    short = ("celery_tutorial", "--no-input", "--only", "bulk", "--loop", "3", "--delay", "0")
    done = manage(*short, "--output", str(tmp_path / "page"), REDIS_URL=redis_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: 3 chains, heavy then light, have run to their ends" in done.stdout
    assert (tmp_path / "page/report.html").exists()
    assert redis_client.dbsize() == 0
    wrong = manage("celery_tutorial", "--no-input", "--delay", "-1")
    assert wrong.returncode == 1
    assert "delay" in wrong.stderr


def test_the_project_is_sound_and_no_migration_is_missing(manage):
    for arguments in (("check",), ("makemigrations", "--check", "--dry-run")):
        done = manage(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_postgresql_is_a_setting_and_the_key_is_made_for_each_place(manage, tmp_path):
    told = "*(settings.DATABASES['default'][name] for name in ('ENGINE', 'NAME', 'PASSWORD'))"
    code = f"from django.conf import settings; print({told})"
    script = ("-c", f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'; {code}")
    url = "postgresql://shop:p%40ss@db.example.org:5433/orders"
    done = subprocess.run(
        [sys.executable, *script],
        cwd=PROJECT,
        env={**os.environ, "SHOP_DATA": str(tmp_path), "SHOP_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["django.db.backends.postgresql", "orders", "p@ss"], done.stderr
    key = tmp_path / ".secret_key"
    assert len(key.read_text()) >= 50
    assert key.stat().st_mode & 0o077 == 0
