"""Who may do what with dead letters in Django's admin."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_toolkit_core.deadletters import DeadLetter

django = pytest.importorskip("django", reason="the extra [django] is not installed")

URL = "/admin/celery_showcase/deadletter/"


@pytest.fixture(scope="session")
def _django():
    from django.conf import settings

    settings.configure(
        SECRET_KEY="of the tests",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["testserver"],
        USE_TZ=True,
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages")),
            "celery_showcase_presets.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
    )
    django.setup()
    from django.contrib import admin
    from django.core.management import call_command
    from django.urls import path

    globals()["urlpatterns"] = [path("admin/", admin.site.urls)]
    call_command("migrate", verbosity=0)
    yield
    from django.db import connections

    connections.close_all()


@pytest.fixture
def letters(_django, redis_url, monkeypatch):
    """Two letters of the application that is Celery's current one."""
    from celery_showcase_presets.dead_letters import dead_letters_of
    from celery_showcase_presets.django import admin

    app = Celery("admin", broker=redis_url, backend=redis_url)
    monkeypatch.setattr(admin, "current_app", app)
    found = dead_letters_of(app)
    for number in (1, 2):
        found.put(DeadLetter(f"id/{number}", "t.<b>a</b>", "failed", b"broken", {"exception": "E<i>", "queue": "q"}))
    yield found
    app.close()


@pytest.fixture
def client_of(letters):
    """A function that logs somebody in who has these permissions; CSRF is checked as in production."""
    from django.contrib.auth.models import Permission, User
    from django.test import Client

    User.objects.all().delete()

    def make(*permissions):
        user = User.objects.create_user("eve", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        return client

    return make


def post(client, path, token=True, **data):
    headers = {}
    if token:
        client.get(URL)
        headers = {"X-CSRFToken": client.cookies["csrftoken"].value} if "csrftoken" in client.cookies else {}
    return client.post(URL + path, data, headers=headers)


def test_the_list_and_a_letter_show_foreign_text_escaped(client_of):
    client = client_of("view_deadletter")
    page = client.get(URL).content.decode()
    assert page.count("t.&lt;b&gt;a&lt;/b&gt;") == 2
    assert "2 messages will not be tried again" in page
    assert "Send the chosen again" not in page
    letter = client.get(f"{URL}letter/id/1/").content.decode()
    assert "E&lt;i&gt;" in letter
    assert "Remove for good" not in letter


@pytest.mark.parametrize("path", ["", "letter/id/1/"])
def test_who_may_not_look_sees_nothing(client_of, path):
    assert client_of("delete_deadletter").get(URL + path).status_code == 403


def test_nobody_gets_in_without_a_login(letters):
    from django.test import Client

    for path in ("", "replay/", "purge/", "letter/id/1/"):
        assert Client().get(URL + path)["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("path", ["replay/", "purge/"])
def test_a_link_cannot_act_and_neither_can_a_post_without_the_token(client_of, letters, path):
    client = client_of("view_deadletter", "delete_deadletter", "replay_deadletter")
    assert client.get(URL + path, {"id": "id/1"}).status_code == 405
    assert post(client, path, token=False, id="id/1").status_code == 403
    assert len(letters) == 2


@pytest.mark.parametrize(("path", "permission"), [("replay/", "delete_deadletter"), ("purge/", "replay_deadletter")])
def test_each_button_needs_its_own_permission(client_of, letters, path, permission):
    assert post(client_of("view_deadletter", permission), path, id="id/1").status_code == 403
    assert len(letters) == 2


def test_purge_removes_what_was_chosen_and_nothing_else(client_of, letters):
    client = client_of("view_deadletter", "delete_deadletter")
    assert post(client, "purge/", id="id/1").status_code == 302
    assert [letter.id for letter in letters] == ["id/2"]
    assert "1 letter was removed" in client.get(URL).content.decode()
    post(client, "purge/")
    assert "Choose the letters first" in client.get(URL).content.decode()


def test_a_letter_that_cannot_be_sent_stays_and_the_page_says_so(client_of, letters):
    client = client_of("view_deadletter", "replay_deadletter")
    assert post(client, "replay/", id="id/1").status_code == 302
    assert len(letters) == 2


def test_a_server_that_is_away_is_a_message_without_its_password(client_of, monkeypatch):
    from celery_showcase_presets.django import admin

    client = client_of("view_deadletter")
    monkeypatch.setattr(admin, "current_app", app := Celery("gone", broker="redis://:secret@127.0.0.1:1/0"))
    page = client.get(URL)
    assert page.status_code == 200
    assert "errornote" in page.content.decode() or 'class="error"' in page.content.decode()
    assert "secret" not in page.content.decode()
    app.close()
