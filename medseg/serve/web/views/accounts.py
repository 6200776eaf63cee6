"""In and out."""

from __future__ import annotations

from django.contrib.auth import views
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from medseg.serve.web.access import note
from medseg.serve.web.lockout import address_of, failed, is_locked, succeeded
from medseg.serve.web.words import say


@method_decorator(sensitive_post_parameters(), name="dispatch")
class LogIn(views.LoginView):
    """Django's, which stops looking at passwords after too many wrong ones."""

    template_name = "web/log_in.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        account, address = request.POST.get("username", ""), address_of(request)
        if is_locked(account, address):
            note(request, "log-in refused", user=account[:150])
            locked = say("Too many failed log-ins; try again in 15 minutes.")
            context = self.get_context_data(form=self.get_form_class()(request), locked=locked)
            return self.render_to_response(context, status=429)
        return super().post(request, *args, **kwargs)

    def form_valid(self, form) -> HttpResponse:
        succeeded(self.request.POST["username"])
        response = super().form_valid(form)
        note(self.request, "log-in")
        return response

    def form_invalid(self, form) -> HttpResponse:
        account = self.request.POST.get("username", "")
        failed(account, address_of(self.request))
        note(self.request, "log-in failed", user=account[:150])
        return super().form_invalid(form)


class LogOut(views.LogoutView):
    def post(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
        note(request, "log-out")
        return super().post(request, *args, **kwargs)


class Password(views.PasswordChangeView):
    template_name = "web/password.html"
    success_url = "/"

    def form_valid(self, form) -> HttpResponse:
        note(self.request, "password changed")
        return super().form_valid(form)
