"""What is installed is listed to its end, and "nothing was asked" is not "nothing was found"."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def advisories(monkeypatch):
    pytest.importorskip("packaging")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import advisories

    return advisories


def test_what_a_package_needs_is_listed_too_and_what_is_not_there_is_said(advisories):
    pytest.importorskip("django")
    found = advisories.closure(["django>=5", "no-such-package-of-anybody"])
    assert {"django", "asgiref", "sqlparse", "no-such-package-of-anybody"} <= set(found)
    assert found["no-such-package-of-anybody"] is None
    assert "BSD" in advisories.licence_of(found["django"])


def test_the_extra_of_the_site_is_in_the_list(advisories):
    asked = " ".join(advisories.wanted("serve"))
    assert "django" in asked and "pynetdicom" in asked and "torch" in asked


@pytest.mark.parametrize(
    ("code", "out", "err", "exit_code"),
    [
        (0, "", "No known vulnerabilities found", 0),
        (0, "a could not be audited: a (1.0)", "No known vulnerabilities found", 3),
        (1, "a 1.0 PYSEC-1", "Found 1 known vulnerability in 1 package", 1),
        (1, "", "ConnectionError: no name", 3),
    ],
)
def test_an_audit_that_asked_nobody_is_not_called_clean(advisories, monkeypatch, code, out, err, exit_code):
    answer = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr(advisories.subprocess, "run", lambda *words, **options: answer)
    assert advisories.audit({"a": SimpleNamespace(version="1.0")}) == exit_code
