"""Every page of the demo site under axe-core (WCAG 2 A and AA) in a real browser, and by keyboard alone.

    python tools/web/check_pages.py

axe-core comes from npm by the lock file of medseg/serve/web/npm, and goes with this run; Chromium has to be
there. Prints what each page violates, and exits 1 when there is anything.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tools" / "docs")]
from vendor import installed  # noqa: E402

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MOST_TABS = 120
SCHEMES = ("light", "dark")


def violations(page, axe: str) -> list[str]:
    """ "rule (impact): what, n elements, the first of them" of everything that axe-core finds."""
    page.evaluate(axe)
    found = page.evaluate("rules => axe.run({runOnly: rules}).then(r => r.violations)", RULES)
    return [
        f"{one['id']} ({one['impact']}): {one['help']}, {len(one['nodes'])} x {one['nodes'][0]['html'][:120]}"
        for one in found
    ]


def unreached(page) -> list[str]:
    """Links and controls that are shown and that Tab does not come to."""
    wanted = page.evaluate(
        "() => [...document.querySelectorAll('a[href], button, input, select, summary, canvas[tabindex]')]"
        ".filter(e => !e.disabled && e.type !== 'hidden' && e.checkVisibility())"
        ".filter(e => e.type !== 'radio' || e.checked)"
        ".map((e, n) => { e.dataset.stop = n; return e.outerHTML.slice(0, 120); })"
    )
    reached: set[str] = set()
    page.evaluate("() => { document.activeElement?.blur(); window.scrollTo(0, 0); }")
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        stop = page.evaluate("() => document.activeElement?.dataset?.stop ?? ''")
        if stop in reached:
            break
        reached.update({stop} - {""})
    return [text for number, text in enumerate(wanted) if str(number) not in reached]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="SITE", help="default: a temporary folder")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright
    from web_pictures import LONGEST_MS, WITHOUT_A_SCREEN, prepared, site

    count = 0
    with tempfile.TemporaryDirectory() as name, installed() as modules, sync_playwright() as driver:
        axe = (modules / "axe-core" / "axe.min.js").read_text()
        process, address, password = site(options.data or Path(name) / "site")
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=WITHOUT_A_SCREEN)
            page = browser.new_page(viewport={"width": 1100, "height": 720})
            page.set_default_timeout(LONGEST_MS)
            for what, path in prepared(page, address, password, Path(name)).items():
                page.goto(address + path)
                found = [f"keyboard: never reached {text}" for text in unreached(page)]
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    found += [f"{scheme}: {line}" for line in violations(page, axe)]
                count += len(found)
                print(f"{what}: {len(found) or 'nothing'}", *found, sep="\n  ", flush=True)
            browser.close()
        finally:
            process.terminate()
            process.wait(60)
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
