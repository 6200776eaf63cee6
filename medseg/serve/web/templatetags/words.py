"""What templates use beside Django's own tags: ``{% t "text" n=3 %}`` says a text in the user's language."""

from __future__ import annotations

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString

from medseg.serve.web.words import say

register = template.Library()


@register.simple_tag
def t(text: str, **values: object) -> SafeString:
    """The text in the user's language; what is filled in is escaped."""
    return format_html(say(text), **values) if values else conditional_escape(say(text))


@register.filter
def said(text: str) -> str:
    """A word that a view chose, such as a job's state, in the user's language."""
    return say(str(text))


@register.filter
def gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f}"


@register.filter
def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
