"""The administrator's own pages: accounts are Django's; what happened can be read and not rewritten."""

from django.contrib import admin

from medseg.serve.web.models import Event, FailedLogIn


class _ReadOnly(admin.ModelAdmin):
    def has_add_permission(self, request) -> bool:
        return False

    def has_change_permission(self, request, obj=None) -> bool:
        return False

    def has_delete_permission(self, request, obj=None) -> bool:
        return False


@admin.register(Event)
class EventAdmin(_ReadOnly):
    list_display = ("time", "user", "address", "action", "about")
    search_fields = ("user", "about", "action")


@admin.register(FailedLogIn)
class FailedLogInAdmin(admin.ModelAdmin):
    """May be deleted: that lets a person who was locked out try again at once."""

    list_display = ("time", "account", "address")

    def has_add_permission(self, request) -> bool:
        return False
