"""Take the README's picture of a report: ``docs/images/report.png``.

    .venv/bin/python tools/screenshot.py runs/demo/report.html

It needs Debian's Chromium (``make browser``).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

PICTURE = Path(__file__).parent.parent / "docs/images/report.png"
SIZE: ViewportSize = {"width": 1200, "height": 1150}


def main() -> None:
    """Open the page in a browser and write what its first screen shows."""
    (page_file,) = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(Path(page_file).resolve().as_uri(), wait_until="load")
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
