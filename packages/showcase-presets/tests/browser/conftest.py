"""A real browser without a screen, and what a page must keep to be readable."""

from __future__ import annotations

import base64
import os
import shutil

import pytest

from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.plugin import missing

#: Width of a small phone, and of a desk.
PHONE, DESK = 390, 1280

# Every text that can be seen, with the contrast of its colour to the ground below it (WCAG 2.1, relative luminance).
_CONTRASTS = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgba(color) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  const d = canvas.getImageData(0, 0, 1, 1).data;
  return [d[0], d[1], d[2], d[3] / 255];
}
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
function light(color) {
  const [r, g, b] = color.map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(element) {
  if (!element) return rgba(getComputedStyle(document.documentElement).getPropertyValue('color-scheme') &&
    matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#ffffff').slice(0, 3);
  const own = rgba(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
}
const found = [];
const walker = document.createTreeWalker(document.querySelector(arguments[0]), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
  if (!text || !element.checkVisibility() || ['STYLE', 'SCRIPT', 'TITLE', 'OPTION'].includes(element.tagName)) continue;
  const box = element.getBoundingClientRect();
  if (box.width < 2 || box.height < 2) continue;
  const style = getComputedStyle(element);
  const below = ground(element);
  const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), below);
  const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
  found.push([text.slice(0, 60), (a + 0.05) / (b + 0.05)]);
}
return found;
"""


class Browser:
    """Chromium, driven through selenium.

    Args:
        driver: The selenium driver.
        folder: Where screenshots go.
    """

    def __init__(self, driver, folder):
        self.driver = driver
        self._folder = folder

    def look(self, width, dark):
        """Be a screen of this width, in light or in dark colours."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        # Links fade from one colour to the other.
        still = "return document.getAnimations().every(each => each.playState !== 'running')"
        eventually(lambda: self.driver.execute_script(still), 30, "colours have changed")

    def shoot(self, name):
        """Keep a picture of the whole page, in the folder that BROWSER_SHOTS names or the test's own."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        (self._folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def text(self):
        """What one can read on the page now, also while another one is coming."""
        return self.driver.execute_script("return document.body ? document.body.innerText : ''")

    def must_show(self, *texts):
        """Wait until all of these can be read."""
        for text in texts:
            eventually(lambda text=text: text in self.text(), 60, f"the page shows {text!r}")

    def errors(self):
        """What the console has complained of since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def must_be_readable(self, name, within="body"):
        """On a phone and at a desk, by day and by night: no sideways scrolling, 4.5 of contrast, a quiet console."""
        for width in (PHONE, DESK):
            for dark in (False, True):
                where = f"{name}-{width}-{'dark' if dark else 'light'}"
                self.look(width, dark)
                self.shoot(where)
                wide = self.driver.execute_script("return document.documentElement.scrollWidth")
                assert wide <= width, f"{where}: {wide} wide"
                seen = self.driver.execute_script(_CONTRASTS, within)
                assert len(seen) > 2, where
                pale = [(text, round(contrast, 2)) for text, contrast in seen if contrast < 4.5]
                assert not pale, f"{where}: {pale}"
                assert not self.errors(), where


@pytest.fixture
def browser(tmp_path):
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    folder = tmp_path
    if shots := os.environ.get("BROWSER_SHOTS"):
        folder = type(tmp_path)(shots)
        folder.mkdir(parents=True, exist_ok=True)
    driver.set_page_load_timeout(60)
    yield Browser(driver, folder)
    driver.quit()
