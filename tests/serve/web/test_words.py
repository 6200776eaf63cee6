"""Every text of the pages has its Chinese, and nothing is translated that no page says."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

pytest.importorskip("django", reason="the web application needs medseg[serve]")
from medseg.serve.web.words import table  # noqa: E402

WEB = Path(__file__).resolve().parents[3] / "medseg" / "serve" / "web"


def said_in_templates() -> set[str]:
    found = set()
    for path in (WEB / "templates").rglob("*.html"):
        found |= {a or b for a, b in re.findall(r"""\{% t (?:"([^"]*)"|'([^']*)')""", path.read_text())}
    return found


def said_in_code() -> set[str]:
    texts = "".join(path.read_text() for path in WEB.rglob("*.py"))
    said = set(re.findall(r'\bsay\(\s*"([^"]*)"', texts))
    return said | set(re.findall(r'note\(\s*(?:self\.)?request, "([^"]*)"', texts))


def texts_of(questionnaire) -> list[str]:
    """What a questionnaire says in the user's language; its source is cited as it stands."""
    bands = [text for words, meaning, _ in questionnaire.bands for text in (words, meaning)]
    questions = [question.words for question in questionnaire.questions]
    return [questionnaire.title, questionnaire.for_whom, *questions, *bands]


def words_of_tables() -> set[str]:
    from medseg.bundles.queue import STATES
    from medseg.serve.web.result_pages import record_rows
    from medseg.serve.web.screening import QUESTIONNAIRES
    from medseg.serve.web.slices import AXES, WINDOWS

    record = {"bundle": {"name": "b", "weights_sha256": "x"}, "started": "now", "seconds": 1, "device": "cpu"}
    record |= {"options": {"within": "1,2", "settings": {"a": 1}}, "versions": {"a": "1"}}
    rows = {name for name, _ in record_rows(record)}
    assert len(rows) == 8
    asked = {text for one in QUESTIONNAIRES.values() for text in texts_of(one)}
    return {*asked, *STATES, "removed", *AXES, *WINDOWS, "whole", *rows, "reviewed", "review withdrawn"}


def test_every_text_is_translated_and_every_translation_is_used(site_dir):
    said = said_in_templates() | said_in_code() | words_of_tables()
    assert len(said) > 150
    assert sorted(said - set(table())) == []
    assert sorted(set(table()) - said) == []


def test_what_is_filled_in_is_filled_in_in_every_language():
    for english, others in table().items():
        fields = sorted(field for _, field, _, _ in Formatter().parse(english) if field)
        for text in others:
            assert sorted(field for _, field, _, _ in Formatter().parse(text) if field) == fields, english


@pytest.mark.parametrize(
    ("language", "word"),
    [("en", "Research use only"), ("zh-hans", "仅供研究使用"), ("zh-hant", "僅供研究使用")],
)
def test_a_page_speaks_the_language_that_was_chosen(client, language, word):
    client.post("/language/", {"language": language, "next": "/"})
    page = client.get("/upload/").content.decode()
    assert f'<html lang="{language}">' in page and word in page


def test_the_log_in_page_says_how_long_studies_are_kept(site_dir):
    from django.test import Client

    # Django's own log-in view has a "site" of its own among the template's values.
    assert b"Studies are deleted after 30 days." in Client().get("/log-in/").content


def test_the_browser_s_language_is_the_first_choice(client):
    page = client.get("/", headers={"accept-language": "zh-TW,zh;q=0.9"}).content.decode()
    assert '<html lang="zh-hant">' in page and "檢查" in page
