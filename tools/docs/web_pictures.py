"""Take the pictures of the web application that the documentation shows: starts the demo site in a temporary
folder, and a browser that looks at every page.

    python tools/docs/web_pictures.py
    python tools/docs/web_pictures.py --data SITE    a demo site's folder, whose study is contoured already
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
WITHOUT_A_SCREEN = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
COLOURS = 128
LONGEST_MS = 180_000


def site(folder: Path) -> tuple[subprocess.Popen, str, str]:
    """(the running demo, its address, its password)."""
    from medseg.files import write_json

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    archive = {"name": "Hospital archive", "url": "http://127.0.0.1:9/dicom-web"}
    target = {"name": "Planning system", "host": "127.0.0.1", "port": 104, "ae_title": "PLANNING"}
    write_json({"pacs": [archive], "targets": [target]}, folder / "site.json")
    command = [sys.executable, "-m", "medseg", "serve", "--demo", "--data", str(folder), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    password = ""
    for line in process.stdout:
        found = re.search(r"Log in as demo with (\S+)", line)
        password = found.group(1) if found else password
        if "medseg is at" in line:
            return process, f"http://127.0.0.1:{port}", password
    raise SystemExit("the demo site did not start; what it said stands above")


def shoot(page, name: str, whole: bool = False) -> None:
    """Save what the browser shows, in few colours, as web_NAME.png."""
    from PIL import Image

    image = Image.open(io.BytesIO(page.screenshot(full_page=whole, timeout=LONGEST_MS))).convert("RGB")
    out = PICTURES / f"web_{name}.png"
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out.stat().st_size:>7} bytes  {out.name}")


def visit(page, address: str, password: str, phantom: Path) -> None:
    page.goto(f"{address}/")
    shoot(page, "log_in")
    page.fill("#id_username", "demo")
    page.fill("#id_password", password)
    page.keyboard.press("Enter")
    page.wait_for_selector("table")
    page.goto(f"{address}/upload/")
    page.set_input_files("#files", sorted(phantom.rglob("*.dcm")))
    page.fill("#title", "Thigh, second look")
    shoot(page, "upload")
    page.click("form#upload > button")
    page.wait_for_url("**/studies/*/")
    shoot(page, "study", whole=True)
    page.click("text=Contour >> nth=-1")
    page.wait_for_url("**/jobs/*/")
    shoot(page, "job")
    page.goto(f"{address}/")
    shoot(page, "studies")
    page.click('tr:has-text("Demo") >> text=done')
    page.wait_for_selector("#slice")
    page.wait_for_load_state("networkidle")
    shoot(page, "result", whole=True)
    if page.query_selector("#three"):
        page.click("#three summary")
        page.wait_for_selector("#three[data-drawn=yes]", timeout=LONGEST_MS)
        page.locator("#three").scroll_into_view_if_needed(timeout=LONGEST_MS)
        shoot(page, "viewer")
    page.reload()
    page.click("button[value=zh-hant]")
    page.wait_for_load_state("networkidle")
    shoot(page, "traditional_chinese")
    page.click("button[value=en]")
    for name in ("compare", "trail", "pacs"):
        page.goto(f"{address}/{name}/")
        shoot(page, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="SITE", help="default: a temporary folder")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from medseg.phantoms.thigh import write_thigh_phantom

    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        phantom = write_thigh_phantom(Path(name) / "phantom", seed=1)
        process, address, password = site(options.data or Path(name) / "site")
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=WITHOUT_A_SCREEN)
            page = browser.new_page(viewport={"width": 1100, "height": 720})
            page.set_default_timeout(LONGEST_MS)
            visit(page, address, password, phantom.ct_dir)
            browser.close()
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
