"""Draws docs/pictures/*.png: chapters of the tour's page, as they look in a browser by day and by night.

Runs the tour with real workers, then opens its page in a headless Chromium. Takes about a minute.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from selenium import webdriver

TARGET = Path(__file__).resolve().parents[2] / "docs" / "pictures"
#: Picture -> the caption of the figure that it shows.
FIGURES = {
    "heimdall": "limit",
    "chain-router": "its customers move",
    "showcase-presets": "waited in each queue",
    "together": "all four pieces",
}
WIDTH = 900


def browser(folder: Path) -> Any:
    """A headless Chromium with its profile in `folder`."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={folder}")
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def shoot(driver: Any, caption: str, dark: bool) -> bytes:
    """One figure of the page as PNG."""
    metrics = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1.5, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    box = driver.execute_script(
        "const found = [...document.querySelectorAll('figure')].find("
        "each => each.querySelector('figcaption').textContent.includes(arguments[0]));"
        "if (!found) return null; const r = found.getBoundingClientRect();"
        "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1};",
        caption,
    )
    if box is None:
        sys.exit(f"the page has no figure whose caption holds {caption!r}")
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": box, "captureBeyondViewport": True})
    return base64.b64decode(shot["data"])


def main() -> None:
    """Run the tour and shoot its figures."""
    TARGET.mkdir(exist_ok=True)
    tour = Path(sys.executable).with_name("celery-showcase")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([tour, "tour", "--no-input", "--output", scratch], check=True, stdout=subprocess.DEVNULL)
        driver = browser(Path(scratch) / "chromium")
        try:
            driver.get((Path(scratch) / "report.html").as_uri())
            for name, caption in FIGURES.items():
                for dark in (False, True):
                    path = TARGET / f"{name}-{'dark' if dark else 'light'}.png"
                    path.write_bytes(shoot(driver, caption, dark))
                    print(path.name)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
