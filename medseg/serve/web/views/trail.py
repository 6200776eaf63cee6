"""Who did what: a user's own lines, an administrator's all."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from medseg.serve.web.models import Event

ON_A_PAGE = 200


@require_GET
def show(request: HttpRequest) -> HttpResponse:
    everybody = request.user.is_superuser
    events = Event.objects.all() if everybody else Event.objects.filter(user=request.user.username)
    about = request.GET.get("about", "")[:32]
    if about:
        events = events.filter(about__startswith=about)
    context = {"events": events[:ON_A_PAGE], "everybody": everybody, "about": about}
    return render(request, "web/trail.html", context)
