"""What a check says, and how checks are run: each by itself, so that one that breaks is a finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medseg.errors import MedsegError

PASS, FAIL, SKIP, TOLD = "pass", "fail", "skipped", "told"
"""``SKIP``: what it needs is not installed here. ``TOLD``: a figure to keep, without a limit."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, how it came out, in words, and the seconds it took."""

    group: str
    name: str
    state: str
    words: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """``run``: gives (state, words), or raises, which is a failure with the error's words."""

    group: str
    name: str
    run: Callable[[], tuple[str, str]]


def run_checks(checks: Sequence[Check], report: Callable[[Finding], None]) -> list[Finding]:
    """Every check in turn; ``report`` hears of each as it ends."""
    findings = []
    for check in checks:
        began = time.perf_counter()
        try:
            state, words = check.run()
        except (MedsegError, OSError) as error:
            state, words = FAIL, " ".join(str(error).split())
        except Exception as error:  # an installation that is not sound breaks anywhere
            state, words = FAIL, " ".join(f"{type(error).__name__}: {error}".split())
        findings.append(Finding(check.group, check.name, state, words, round(time.perf_counter() - began, 2)))
        report(findings[-1])
    return findings
