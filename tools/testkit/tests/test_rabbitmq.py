"""A real RabbitMQ: private, empty for each test, restarted with its data, and gone with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import kombu
import pytest

from celery_toolkit_testkit import RabbitServer, eventually, is_alive
from celery_toolkit_testkit.processes import session_members


def put(url, value):
    with kombu.Connection(url) as connection, connection.SimpleQueue("testkit") as queue:
        queue.put(value)


def get(url):
    with kombu.Connection(url) as connection, connection.SimpleQueue("testkit") as queue:
        message = queue.get(timeout=30)
        message.ack()
        return message.payload


def size(url):
    with kombu.Connection(url) as connection, connection.SimpleQueue("testkit") as queue:
        return queue.qsize()


@pytest.mark.parametrize("_round", [1, 2])
def test_each_test_finds_an_empty_server(rabbitmq_url, _round):
    assert size(rabbitmq_url) == 0
    put(rabbitmq_url, "left over")


def test_the_marker_comes_with_the_fixture(rabbitmq_server, request):
    assert request.node.get_closest_marker("rabbitmq")


def test_a_durable_message_survives_a_restart(rabbitmq_server, rabbitmq_url):
    put(rabbitmq_url, "durable")
    pid = rabbitmq_server.pid
    rabbitmq_server.restart()
    assert rabbitmq_server.pid != pid
    assert get(rabbitmq_url) == "durable"


def test_a_worker_consumes_from_it(rabbitmq_url, celery_worker_process, celery_app_module, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", rabbitmq_url)
    worker = celery_worker_process("testkit_basic", pool="solo")
    assert "amqp://" in worker.log()
    assert celery_app_module("testkit_basic").add.delay(1, 2).get(timeout=30) == 3


OWNER = """
import time
from celery_toolkit_testkit import RabbitServer
server = RabbitServer()
server.start()
print(*[process.pid for process in server._processes], flush=True)
time.sleep(600)
"""


@pytest.mark.rabbitmq
def test_nothing_is_left_of_it_when_its_parent_is_killed(rabbitmq_server):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        epmd, server = map(int, owner.stdout.readline().split())
        assert is_alive(epmd)
        assert is_alive(server)
        os.kill(owner.pid, signal.SIGKILL)
    eventually(lambda: not session_members(epmd) and not session_members(server))


def test_nothing_is_left_of_it_when_it_is_stopped(rabbitmq_server):
    with RabbitServer() as other:
        epmd, server = (process.pid for process in other._processes)
        folder = other._folder
        assert other.url != rabbitmq_server.url
    assert not folder.exists()
    eventually(lambda: not session_members(epmd) and not session_members(server))
