"""The page in a real browser, if one is installed: no console message, and nothing cut off."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--window-size=1300,2000",
)  # fmt: skip
MEASURE = """<script>
document.querySelectorAll("details").forEach((box) => (box.open = true));
const rows = [...document.querySelectorAll("table")].map((table) => table.rows.length);
const first = document.querySelector(".table");
document.title = "found " + JSON.stringify({
  width: innerWidth, rows, needs: first.scrollWidth, has: first.clientWidth,
  images: [...document.images].every((image) => image.complete && image.naturalWidth > 0),
});
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH")


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The document as the browser has parsed it, and its console messages."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def report(whole_page: Path) -> Path:
    return whole_page


def test_the_page_writes_nothing_to_the_console(report: Path, tmp_path: Path) -> None:
    document, said = opened(report, tmp_path / "profile")
    assert said == []
    assert "In short" in document


def test_a_message_of_the_browser_would_be_seen(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text(report.read_text().replace("</body>", "<script>1</script></body>"))
    _, said = opened(page, tmp_path / "profile")
    assert "Content Security Policy" in said[0]


def test_tables_and_figures_show_and_the_first_table_fits(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "measured.html"
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    text, count = re.subn(policy, "", report.read_text())  # it forbids the script that measures
    assert count == 1
    page.write_text(text.replace("</body>", f"{MEASURE}</body>"))
    document, said = opened(page, tmp_path / "profile")
    assert said == []
    found = json.loads(re.search(r"<title>found (.*?)</title>", document)[1])
    assert found["width"] == 1300
    assert found["images"]
    assert found["rows"][0] == 1 + 4  # two sites, two layers
    assert min(found["rows"]) > 1
    assert found["needs"] <= found["has"]
