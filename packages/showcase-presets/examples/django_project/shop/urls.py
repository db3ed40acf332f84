"""The admin, and from everywhere else the way to it."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.generic import RedirectView

admin.site.site_header = admin.site.site_title = "Shop"


def no_icon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it unasked."""
    return HttpResponse(status=204)


urlpatterns = [
    path("favicon.ico", no_icon),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
