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
    appointments = "https://clinic.example/appointments"
    said = {"pacs": [archive], "targets": [target], "appointment_url": appointments}
    write_json(said, folder / "site.json")
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


def enter(page, address: str, password: str) -> None:
    page.goto(f"{address}/")
    page.fill("#id_username", "demo")
    page.fill("#id_password", password)
    page.keyboard.press("Enter")
    page.wait_for_selector("table")


def uploaded(page, address: str, files: list[Path], title: str) -> str:
    """Upload files as a study; returns its path."""
    page.goto(f"{address}/upload/")
    page.set_input_files("#files", files)
    page.fill("#title", title)
    page.click("form#upload > button")
    page.wait_for_url("**/studies/*/")
    return page.url.removeprefix(address)


def answered(page, address: str, study: str, bundle: str, **choices: str) -> str:
    """Let a bundle answer for a study's one picture; returns the job's path when it has."""
    page.goto(address + study)
    page.check(f'input[value="{bundle}"]')
    for name, value in choices.items():
        page.select_option(f"[name={name}]", value)
    page.click("form.contour > button")
    page.wait_for_url("**/jobs/*/")
    page.wait_for_selector("#stack")
    return page.url.removeprefix(address)


def prepared(page, address: str, password: str, folder: Path) -> dict[str, str]:
    """Log in and fill the demo site; returns {what: path} of every page that there is."""
    import numpy as np
    from PIL import Image

    from medseg.phantoms.chest_film import make_radiograph
    from medseg.phantoms.hip import make_hip
    from medseg.phantoms.thigh import write_thigh_phantom

    films = {
        "hip": make_hip(5001, -3.0, "R", pixels=512).image,
        "chest": make_radiograph(3, side=512).image,
    }
    for name, image in films.items():
        Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(folder / f"{name}.png")
    thigh = write_thigh_phantom(folder / "thigh", seed=1)
    enter(page, address, password)
    demo = page.get_attribute('tr:has-text("Demo: phantom") >> a.state', "href")
    hip = uploaded(page, address, [folder / "hip.png"], "Film of a hip (phantom)")
    chest = uploaded(page, address, [folder / "chest.png"], "Film of a chest (phantom)")
    study = uploaded(page, address, sorted(thigh.ct_dir.rglob("*.dcm")), "Thigh, second look")
    return {
        "studies": "/",
        "upload": "/upload/",
        "study": study,
        "look": f"{study}look/series/s0001/",
        "result": demo,
        "screening": answered(page, address, hip, "hip_osteoporosis", side="R"),
        "film": answered(page, address, chest, "cxr_anatomy"),
        "self_assessment": "/self-assessment/osta/",
        "card": "/bundle/?bundle=hip_osteoporosis",
        "manual": "/manual/",
        "compare": "/compare/",
        "pacs": "/pacs/",
        "trail": "/trail/",
        "password": "/password/",
    }


WHOLE = ("study", "result", "screening")
"""Pages that are shown from top to bottom."""


def visit(page, address: str, password: str, folder: Path) -> None:
    page.goto(f"{address}/")
    shoot(page, "log_in")
    pages = prepared(page, address, password, folder)
    page.goto(f"{address}/upload/")
    page.set_input_files("#files", sorted((folder / "thigh").rglob("*.dcm")))
    page.fill("#title", "Thigh, second look")
    shoot(page, "upload")
    for name, path in pages.items():
        if name in ("upload", "password"):
            continue
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        if name == "look":
            draw(page)
        shoot(page, name, whole=name in WHOLE)
        if name == "screening":
            page.click("button[value=zh-hans]")
            page.wait_for_load_state("networkidle")
            shoot(page, "simplified_chinese")
            page.click("button[value=en]")
        if name == "study":
            page.click("form.contour > button")
            page.wait_for_url("**/jobs/*/")
            shoot(page, "job")
            page.click("text=Cancel")
    page.goto(address + pages["result"])
    if page.query_selector("#three"):
        page.click("#three summary")
        page.wait_for_selector("#three[data-drawn=yes]", timeout=LONGEST_MS)
        page.locator("#three").scroll_into_view_if_needed(timeout=LONGEST_MS)
        shoot(page, "viewer")
    page.reload()
    page.click("button[value=zh-hant]")
    page.wait_for_load_state("networkidle")
    shoot(page, "traditional_chinese")


def draw(page) -> None:
    """A box around the middle of the slice that is shown."""
    box = page.locator("#drawn").bounding_box()
    for share, press in ((0.3, page.mouse.down), (0.7, page.mouse.up)):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + share * box["height"], steps=3)
        press()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="SITE", help="default: a temporary folder")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        process, address, password = site(options.data or Path(name) / "site")
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=WITHOUT_A_SCREEN)
            page = browser.new_page(viewport={"width": 1100, "height": 720})
            page.set_default_timeout(LONGEST_MS)
            visit(page, address, password, Path(name))
            browser.close()
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
