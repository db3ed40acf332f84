"""Which server program is chosen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celery_toolkit_core import local_server
from celery_toolkit_core.local_server import LocalServer, ServerNotFound, find_program, find_wheel_program


def program(folder, name):
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_program_on_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = program(tmp_path, "valkey-server")
    assert find_program() == valkey
    redis = program(tmp_path, "redis-server")
    assert find_program() == redis


def test_the_wheel_is_the_last_resort(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() == find_wheel_program()
    assert Path(sys.prefix) in find_program().parents


def test_no_server_anywhere_names_the_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerNotFound, match=r"set REDIS_URL, install redis-server .* celery-toolkit-core\[embedded\]"):
        find_program()


def test_what_only_a_started_server_has_says_so():
    server = LocalServer("/some/redis-server")
    assert server.log() == ""
    for name in ("port", "url", "pid", "socket_url"):
        with pytest.raises(RuntimeError, match=r"start|running"):
            getattr(server, name)
    server.stop()
