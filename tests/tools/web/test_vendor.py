"""What is taken from npm carries its licences, and what has none is not given on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def vendor():
    sys.path.insert(0, str(ROOT / "tools" / "web"))
    import vendor

    yield vendor
    sys.path.remove(str(ROOT / "tools" / "web"))


def modules(folder: Path, **packages: str | None) -> dict:
    """A folder node_modules and the lock file of it; the value is the licence's text."""
    rows = {"": {"name": "medseg-web"}}
    for name, text in packages.items():
        (folder / name).mkdir(parents=True)
        if text:
            (folder / name / "LICENSE.md").write_text(text)
        rows[f"node_modules/{name}"] = {"version": "1.2.3", "license": "MIT"}
    return {"packages": rows}


def test_every_package_that_a_browser_gets_is_named_with_its_licence(vendor, tmp_path):
    lock = modules(tmp_path, alpha="Copyright A", beta="Copyright B", checker="Copyright C")
    lock["packages"]["node_modules/checker"]["dev"] = True
    text = vendor.licences(tmp_path, lock)
    assert "alpha 1.2.3 (MIT)" in text and "Copyright A" in text and "Copyright B" in text
    assert "checker" not in text


def test_a_package_without_a_licence_is_not_given_on(vendor, tmp_path):
    with pytest.raises(SystemExit, match="alpha 1.2.3: no licence text"):
        vendor.licences(tmp_path, modules(tmp_path, alpha=None))


def test_the_lock_file_pins_what_the_list_asks_for(vendor):
    asked, lock = (json.loads((vendor.WEB / "npm" / name).read_text()) for name in vendor.LISTS)
    for name, version in {**asked["dependencies"], **asked["devDependencies"]}.items():
        row = lock["packages"][f"node_modules/{name}"]
        assert row["version"] == version and row["integrity"].startswith("sha512-")
    text = vendor.WITHOUT_A_LICENCE_FILE["@niivue/niivue"].read_text()
    assert "Niivue" in text and "Redistribution and use" in text
