"""Dead letters in Django's admin: a list, a page for each letter, and two buttons."""
# mypy: disable-error-code="import-untyped,misc,untyped-decorator"
# Django ships no types.

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery import current_app
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from celery_toolkit_core.errors import ToolkitError
from celery_toolkit_core.log import event

from ..dead_letters import dead_letters_of, replay
from .models import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

logger = logging.getLogger(__name__)

#: Letters on one page of the list.
PAGE = 50
#: What may go wrong with servers that are away; it becomes a message on the page.
_FORESEEN = (ToolkitError, RedisError, KombuError, OSError)


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):
    """The letters of Celery's current application, which is the one that the project's ``celery.py`` makes default."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody writes a letter by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody changes one."""
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Whether this user may send letters again."""
        return bool(request.user.has_perm("celery_showcase.replay_deadletter"))

    def get_urls(self) -> list[Any]:
        """The pages; names of Django's own scheme where it has one, for the links that it makes itself."""
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.changelist_view), name="celery_showcase_deadletter_changelist"),
            path("replay/", wrap(self.replay_view), name="celery_showcase_deadletter_replay"),
            path("purge/", wrap(self.purge_view), name="celery_showcase_deadletter_purge"),
            path("letter/<path:task_id>/", wrap(self.letter_view), name="celery_showcase_deadletter_letter"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, oldest first, a page at a time."""
        self._demand(self.has_view_permission(request))
        after = request.GET.get("after", "")
        page, total = [], 0
        try:
            letters = dead_letters_of(current_app)
            total = len(letters)
            page = letters.page(after, count=PAGE + 1)
        except _FORESEEN as error:
            messages.error(request, _sentence(error))
        rows = [_row(letter) for letter in page[:PAGE]]
        more = page[PAGE - 1].cursor if len(page) > PAGE else ""
        context = {"rows": rows, "total": total, "after": after, "more": more, **(extra_context or {})}
        return self._page(request, "list.html", _("Dead letters"), context)

    def letter_view(self, request: HttpRequest, task_id: str) -> HttpResponse:
        """One letter with its arguments and its traceback."""
        self._demand(self.has_view_permission(request))
        try:
            found = dead_letters_of(current_app).find(task_id)
        except _FORESEEN as error:
            messages.error(request, _sentence(error))
            return self._back()
        if found is None:
            messages.warning(request, _("There is no dead letter of task %s any more.") % task_id)
            return self._back()
        details = dict(found.details)
        traceback = details.pop("traceback", "")
        context = {"row": _row(found), "details": details, "traceback": traceback}
        return self._page(request, "letter.html", found.task, context)

    def replay_view(self, request: HttpRequest) -> HttpResponse:
        """Send the chosen letters again, each with its own task id, once."""

        def send(ids: list[str]) -> str:
            sent = len(replay(current_app, ids))
            return str(ngettext("%d message was sent again.", "%d messages were sent again.", sent) % sent)

        return self._act(request, "replayed", self.has_replay_permission(request), send)

    def purge_view(self, request: HttpRequest) -> HttpResponse:
        """Remove the chosen letters for good."""

        def remove(ids: list[str]) -> str:
            gone = dead_letters_of(current_app).purge(ids)
            return str(ngettext("%d letter was removed.", "%d letters were removed.", gone) % gone)

        return self._act(request, "purged", self.has_delete_permission(request), remove)

    def _act(
        self, request: HttpRequest, what: str, permitted: bool, action: Callable[[list[str]], str]
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self._demand(permitted)
        ids = request.POST.getlist("id")
        if not ids:
            messages.warning(request, _("Choose the letters first."))
            return self._back()
        try:
            messages.success(request, action(ids))
            event(logger, logging.INFO, f"dead_letters_{what}", user=request.user.get_username(), letters=len(ids))
        except _FORESEEN as error:
            messages.error(request, _sentence(error))
        return self._back()

    def _page(self, request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> HttpResponse:
        rights = {"can_replay": self.has_replay_permission(request), "can_purge": self.has_delete_permission(request)}
        every = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, **rights, **context}
        return TemplateResponse(request, f"admin/celery_showcase/{template}", every)

    def _back(self) -> HttpResponse:
        return HttpResponseRedirect(
            reverse("admin:celery_showcase_deadletter_changelist", current_app=self.admin_site.name)
        )

    @staticmethod
    def _demand(permitted: bool) -> None:
        if not permitted:
            raise PermissionDenied


def _row(letter: Any) -> dict[str, Any]:
    return {
        "id": letter.id,
        "task": letter.task,
        "reason": letter.reason,
        "exception": letter.details.get("exception", ""),
        "retries": letter.details.get("retries", ""),
        "queue": letter.details.get("queue", ""),
        "at": datetime.fromtimestamp(letter.at, timezone.utc),
    }


def _sentence(error: Exception) -> str:
    # Our errors never hold a password; a driver's might, so that only its kind is told.
    return str(error) if isinstance(error, ToolkitError) else f"{type(error).__name__}: is the server there?"
