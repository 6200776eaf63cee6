"""What medseg installs of others, with versions and licences, and which of it has a known weakness.

    python tools/advisories.py                 the list, then pip-audit over it
    python tools/advisories.py --list-only     the list alone: it needs no network

The packages are those of setup.cfg and of its extra ``serve``, with all that they need, as they are installed
in this Python. pip-audit asks PyPI; where that cannot be reached it says so, and this exits 3: nothing was
found because nothing was asked. Exits 1 when there is a weakness.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from configparser import ConfigParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_ASKED = 3


def wanted(extra: str) -> list[str]:
    """Requirements of setup.cfg, and of one of its extras."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"] + config["options.extras_require"][extra]
    return [line for line in lines.splitlines() if line.strip()]


def closure(requirements: Iterable[str]) -> dict[str, Distribution | None]:
    """{name: what is installed of it, None where nothing is} of these and of all that they need here."""
    from packaging.requirements import Requirement

    found: dict[str, Distribution | None] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(one.name)
        except PackageNotFoundError:
            found[name] = None
            continue
        for text in found[name].requires or ():
            needed = Requirement(text)
            extras = one.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return dict(sorted(found.items()))


def licence_of(package: Distribution) -> str:
    """As the package says it: the expression, the classifier, or the first line of the field."""
    said = package.metadata
    if said.get("License-Expression"):
        return said["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or () if "License ::" in line
    ]
    return ", ".join(classifiers) or (said.get("License") or "does not say").strip().splitlines()[0][:60]


def audit(packages: dict[str, Distribution | None]) -> int:
    """Let pip-audit ask about exactly these versions; returns the exit code."""
    pins = [f"{name}=={package.version.split('+')[0]}" for name, package in packages.items() if package]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(pins) + "\n")
        words = ["-r", str(path), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, check=False
        )
    print((done.stdout + done.stderr).strip())
    skipped = done.stdout.count("could not be audited")
    if done.returncode == 0 and skipped < len(pins):
        print(f"{len(pins) - skipped} of {len(pins)} packages were asked about.")
        return 0
    if "vulnerabilit" in done.stderr and "No known" not in done.stderr:
        return 1
    print("Nobody could be asked: this says nothing about weaknesses.")
    return NOT_ASKED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--extra", default="serve", help="of setup.cfg, default serve")
    parser.add_argument("--list-only", action="store_true", help="do not ask pip-audit")
    options = parser.parse_args()
    packages = closure(wanted(options.extra))
    for name, package in packages.items():
        said = f"{package.version:<18} {licence_of(package)}" if package else "not installed"
        print(f"{name:<28} {said}")
    print(f"{len(packages)} packages")
    return 0 if options.list_only else audit(packages)


if __name__ == "__main__":
    raise SystemExit(main())
