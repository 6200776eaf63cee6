"""The application, as Django knows it."""

from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "medseg.serve.web"
    label = "web"
    verbose_name = "medseg"
