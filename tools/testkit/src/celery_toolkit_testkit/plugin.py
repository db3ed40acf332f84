"""The pytest plugin: fixtures around real servers and processes, loaded wherever the testkit is installed."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

import pytest
import redis
from celery import Celery, _state, signals
from celery.backends.asynchronous import BaseResultConsumer
from celery.utils.dispatch import Signal
from kombu import pools

from celery_toolkit_core.connection import connect
from celery_toolkit_core.local_server import LocalServer, ServerNotFound, find_wheel_program

from .certificates import OpensslNotFound
from .events import PATH_VARIABLE, EventLog
from .polling import eventually
from .proxy import TcpProxy
from .rabbitmq import RabbitNotFound, RabbitServer
from .topologies import TOPOLOGIES, Reached
from .worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import ModuleType

#: Port -> process id of the server that the last test had there.
_served: dict[int, int] = {}
_workers_key = pytest.StashKey[list[WorkerProcess]]()


def missing(reason: str) -> NoReturn:
    """Skip because a server is not installed; under ``CI=true`` that is a failure."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"needed under CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _own_results(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends with the test what listens for its results: a result that is collected later would talk to a dead server."""
    listeners: list[BaseResultConsumer] = []
    make = BaseResultConsumer.__init__

    def make_and_note(self: BaseResultConsumer, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        listeners.append(self)

    monkeypatch.setattr(BaseResultConsumer, "__init__", make_and_note)
    yield
    for listener in listeners:
        listener.stop()
        listener._pubsub = None  # type: ignore[attr-defined]  # what the one of Redis listens on


@pytest.fixture(autouse=True)
def _own_applications() -> Iterator[None]:
    """Ends with the test what Celery shares over all applications of a process: shared tasks, and who gets them."""
    # Without this a test's application would get the tasks of all modules that other tests have imported, and theirs.
    shared: set[object] = _state._on_app_finalizers  # type: ignore[attr-defined]  # not in the stubs
    applications: WeakSet[Celery] = _state._apps  # type: ignore[attr-defined]  # likewise
    before, others = set(shared), list(applications)
    applications.clear()
    yield
    shared.clear()
    shared.update(before)
    applications.clear()
    applications.update(others)


def _topology() -> str:
    return os.environ.get("TOOLKIT_TEST_TOPOLOGY", "plain")


@pytest.fixture(scope="session")
def _reached() -> Iterator[Reached]:
    chosen = os.environ.get("TOOLKIT_TEST_SERVER")
    topology = TOPOLOGIES[_topology()]
    with ExitStack() as stack:
        try:
            reached = stack.enter_context(topology(find_wheel_program() if chosen == "wheel" else chosen))
        except (ServerNotFound, OpensslNotFound) as error:
            missing(str(error))
        yield reached


@pytest.fixture(scope="session")
def redis_server(_reached: Reached) -> LocalServer:
    """A private Redis server of this test process (each xdist worker has its own), for the whole session.

    The variable ``TOOLKIT_TEST_SERVER`` chooses another program than the usual one: a path, or ``wheel``.
    """
    return _reached.server


@pytest.fixture
def redis_url(_reached: Reached) -> str:
    """The URL of the private server, emptied for this test; started anew if a test has ended it.

    The variable ``TOOLKIT_TEST_TOPOLOGY`` chooses how it leads there: ``plain`` (the default), ``unix``, ``acl``,
    ``tls``, ``sentinel`` or ``cluster``.
    """
    _reached.server.start()
    if _reached.server.pid != _served.get(_reached.server.port):
        # kombu's connections are shared by all applications of a process; those to a server that has ended are broken.
        pools.reset()
        _reached.settle()
        _served[_reached.server.port] = _reached.server.pid
    client = connect(_reached.url, timeout=10.0)
    client.flushall()
    client.script_flush()
    client.close()
    return _reached.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the private, emptied server; it answers with bytes."""
    client = connect(redis_url, timeout=10.0)
    yield client
    client.close()


@pytest.fixture
def cut_connections(redis_client: redis.Redis) -> Iterator[Callable[[], int]]:
    """Cuts all connections to the private server but the fixture's own, and returns how many there were.

    kombu's are shared by all applications of a process: the next test begins with new ones.
    """
    yield lambda: int(redis_client.client_kill_filter(_type="normal", skipme=True))
    pools.reset()


@pytest.fixture
def replicated_pair() -> Iterator[tuple[LocalServer, LocalServer]]:
    """A primary of this test's own, and its replica, which has caught up."""
    with LocalServer() as primary, LocalServer(config={"replicaof": ["127.0.0.1", str(primary.port)]}) as replica:
        with connect(primary.url) as client:
            eventually(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
        yield primary, replica


@pytest.fixture
def event_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EventLog:
    """What tasks wrote with `log_event`, in a file outside Redis; named in the environment of this test's processes."""
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return EventLog(path)


@pytest.fixture
def celery_environment(
    redis_server: LocalServer, redis_url: str, event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broker and result backend on the emptied private server, by the environment, here and in what is started here."""
    monkeypatch.setenv("CELERY_BROKER_URL", redis_server.url)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", redis_server.url)
    monkeypatch.setenv("C_FORCE_ROOT", "1")


@pytest.fixture
def celery_app_module(
    request: pytest.FixtureRequest, celery_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the folder ``apps`` beside the test, for this test only, by the name that workers use."""
    folder = request.path.parent / "apps"
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if name not in before and folder in Path(getattr(module, "__file__", None) or "/").parents:
            _disconnect(name)
            for value in vars(module).values():
                if isinstance(value, Celery):
                    value.close()
            del sys.modules[name]


def _disconnect(module: str) -> None:
    """Let no function of the module hear Celery's signals any more."""
    for signal in vars(signals).values():
        if isinstance(signal, Signal):
            for _, receiver in list(signal.receivers):
                if getattr(receiver, "__module__", None) == module:
                    signal.receivers[:] = [each for each in signal.receivers if each[1] is not receiver]
                    signal.sender_receivers_cache.clear()  # type: ignore[attr-defined]  # not in the stubs


@pytest.fixture
def celery_worker_process(
    request: pytest.FixtureRequest, celery_environment: None, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts real workers: ``celery_worker_process("module", pool="prefork", ...)``, see `WorkerProcess`.

    Modules come from the folder ``apps`` beside the test, broker and backend are the private server unless `env` says
    otherwise. It returns when the worker is ready (``wait=False``: at once). All end with the test; when that fails,
    their logs are in its report.
    """
    workers: list[WorkerProcess] = request.node.stash.setdefault(_workers_key, [])

    def start(module: str, *, wait: bool = True, **options: Any) -> WorkerProcess:
        number = len(workers) + 1
        options.setdefault("name", f"w{number}")
        options.setdefault("path", [request.path.parent / "apps"])
        worker = WorkerProcess(module, tmp_path / f"worker-{number}.log", **options)
        workers.append(worker)
        if wait:
            worker.wait_ready()
        return worker

    yield start
    for worker in workers:
        worker.destroy()


@pytest.fixture
def tcp_proxy(request: pytest.FixtureRequest) -> Iterator[Callable[..., TcpProxy]]:
    """Puts proxies in front of servers: ``tcp_proxy()`` for the private Redis, ``tcp_proxy(url)`` for any other."""
    proxies: list[TcpProxy] = []

    def start(url: str | None = None) -> TcpProxy:
        if url is None:
            request.getfixturevalue("redis_url")  # empties it; the way that URL takes may not be one of host and port
            url = request.getfixturevalue("redis_server").url
        proxy = TcpProxy(url)
        proxy.start()
        proxies.append(proxy)
        return proxy

    yield start
    for proxy in proxies:
        proxy.close()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A private RabbitMQ for the whole session; its tests carry the marker ``rabbitmq`` by themselves.

    Starting takes 5 to 10 seconds. With ``--dist loadgroup`` all its tests go to one xdist worker, so it starts once.
    """
    try:
        server = RabbitServer()
    except RabbitNotFound as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitServer) -> str:
    """The URL of an empty virtual host of the private RabbitMQ; started anew if a test has ended it."""
    rabbitmq_server.start()
    return rabbitmq_server.fresh_url()


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known where the workspace's own configuration is not read."""
    config.addinivalue_line("markers", "rabbitmq: needs a RabbitMQ server")
    config.addinivalue_line(
        "markers", "not_on(*topologies, reason): makes no sense over these ways to reach Redis (TOOLKIT_TEST_TOPOLOGY)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that use RabbitMQ, and keep them together under xdist; skip what the chosen topology rules out."""
    for item in items:
        for mark in item.iter_markers("not_on"):
            if _topology() in mark.args:
                item.add_marker(pytest.mark.skip(reason=f"not on {_topology()}: {mark.kwargs['reason']}"))
        if "rabbitmq_server" in getattr(item, "fixturenames", ()):
            item.add_marker("rabbitmq")
            if config.pluginmanager.has_plugin("xdist"):
                item.add_marker(pytest.mark.xdist_group("rabbitmq"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: tier(item.path))


def tier(path: Path) -> int:
    """How long the tests of a file take, the longest first: one that begins last would keep a single process busy."""
    if "tests-integration" in path.parts:
        return 0
    return next((place for place, name in enumerate(("worker", "browser", "redis"), 1) if name in path.parts), 4)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the logs of a failed test's workers into its report."""
    report = yield
    if report.failed:
        for worker in item.stash.get(_workers_key, []):
            report.sections.append((f"log of worker {worker.name}, pid {worker.pid}", worker.log()))
    return report
