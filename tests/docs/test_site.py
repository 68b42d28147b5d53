"""The built documentation in a browser: it works from files alone, and by the rules of axe-core.

The site is built anew by ``make docs``, so the test fails where a link of a page leads nowhere.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from documentation import ROOT
from reporting.conftest import browser as browser
from reporting.explored import BROWSER
from reporting.test_accessible import grave

MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MKDOCS.exists(), reason="no .venv-docs: make docs makes it"),
    pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH"),
]
OTHERS = [("light", 400), ("dark", 400), ("dark", 1280)]  # all pages are tried at 1280, light
# Pages with everything that a page can have: code, figures, wide tables, signatures, long names.
SOME = ("index", "choices", "notebooks/study", "reference/choices")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a folder of its own, without a warning."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    for command in (
        [sys.executable, "-m", "tools.reference"],
        [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(folder)],
    ):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def pages(site: Path) -> list[Path]:
    """Every page; that of a missing address is served by a server alone, from its root."""
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def failures(request: Any) -> list[str]:
    """What failed, but for what the browser gave up because it went to another page."""
    why = request.failure
    return [] if why == "net::ERR_ABORTED" else [f"failed: {why} {request.url[:200]}"]


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of the browser. What it says or asks of anything but files fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, bypass_csp=True)
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("requestfailed", lambda request: heard.extend(failures(request)))
    page.on("request", lambda request: heard.append(request.url[:200]))
    yield page
    context.close()
    assert [text for text in heard if not text.startswith(("file:", "data:", "about:"))] == []


def test_every_page_opens_from_a_file_and_axe_finds_nothing_grave(site: Path, page: Any) -> None:
    found = {}
    for path in pages(site):
        page.goto(path.as_uri())
        if wrong := grave(page, 1280, "light"):
            found[str(path.relative_to(site))] = wrong
    assert len(pages(site)) > 20
    assert found == {}


@pytest.mark.parametrize(("scheme", "width"), OTHERS)
@pytest.mark.parametrize("name", SOME)
def test_axe_finds_nothing_grave_at_other_sizes(
    site: Path, page: Any, name: str, scheme: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    page.emulate_media(color_scheme=scheme)
    page.goto((site / f"{name}.html").as_uri())
    shown = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
    assert shown == {"light": "default", "dark": "slate"}[scheme]
    assert grave(page, width, scheme) == []


def test_no_page_scrolls_sideways_on_a_telephone(site: Path, page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 1000})
    wide = {}
    for path in pages(site):
        page.goto(path.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 400:
            wide[str(path.relative_to(site))] = width
    assert wide == {}


def test_search_finds_a_page_without_a_server(site: Path, page: Any) -> None:
    page.goto((site / "index.html").as_uri())
    page.click(".md-search__input")
    page.keyboard.type("checksums.sha256")
    page.wait_for_selector(".md-search-result__link", timeout=60_000)
    found = page.locator(".md-search-result__link").evaluate_all("all => all.map((a) => a.href)")
    assert any("reference/files.html" in link for link in found), found


def test_a_page_can_be_printed(site: Path, page: Any) -> None:
    page.goto((site / "reference" / "files.html").as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator(".md-sidebar--primary").is_visible()


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    """Read from the built pages: to files of the site, and to places of a page that are there."""
    broken = []
    texts = {path: path.read_text() for path in pages(site)}
    anchors = {path: set(re.findall(r'\bid="?([^"\s>]+)', text)) for path, text in texts.items()}
    for path, text in texts.items():
        for link in re.findall(r'<a\b[^>]*?\bhref="?([^"\s>]+)', text):
            if re.match(r"[a-z]+:", link):
                continue
            place, _, anchor = html.unescape(unquote(link)).partition("#")
            target = (path.parent / place).resolve() if place else path
            known = anchors.get(target, set()) | {"", "__toc"}
            if not target.is_file() or (target not in anchors and anchor) or anchor not in known:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []
    assert "scale.html" in texts[site / "about" / "changelog.html"]


REWRITTEN = {
    "[a](../bias.md#tpr)": "[a](../bias.md#tpr)",
    "[`b`\nof two lines](../../CHANGELOG.md)": "[`b`\nof two lines](../about/changelog.md)",
    "[c](../../README.md)": "[c](../index.md)",
    "[d](../notebooks/study.ipynb)": "[d](../notebooks/study.md)",
    "![e](../images/a.png)": "![e](../images/a.png)",
    "[f](https://example.org/x)": "[f](https://example.org/x)",
    "[g](#here)": "[g](#here)",
    "[h](../../src/keygap/cli.py)": "h",  # no address of the repository is known
    "`[i](../../src/a.py)`": "`[i](../../src/a.py)`",
    "```bash\n[j](../../src/a.py)\n```": "```bash\n[j](../../src/a.py)\n```",
}


def test_links_out_of_the_documentation_are_rewritten() -> None:
    """In the environment of the site, which has MkDocs."""
    code = (
        "import json, sys; from types import SimpleNamespace as N\n"
        "from tools.docs_hooks import PAGES, on_page_markdown\n"
        "page, files = N(file=N(src_uri='howto/a.md')), N(src_uris=set(PAGES.values()))\n"
        "made = [on_page_markdown(text, page, None, files) for text in json.load(sys.stdin)]\n"
        "print(json.dumps(made))"
    )
    done = subprocess.run(
        [str(MKDOCS.with_name("python")), "-c", code],
        cwd=ROOT, input=json.dumps(list(REWRITTEN)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(zip(REWRITTEN, json.loads(done.stdout), strict=True))
    expected = dict(REWRITTEN)
    if "urls" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]:
        expected.pop("[h](../../src/keygap/cli.py)")
        assert "/blob/main/src/keygap/cli.py)" in found.pop("[h](../../src/keygap/cli.py)")
    assert found == expected


def test_axe_would_find_an_image_without_a_text(site: Path, page: Any) -> None:
    page.goto((site / "index.html").as_uri())
    page.evaluate("document.querySelector('article img').removeAttribute('alt')")
    assert "image-alt" in [rule for rule, _ in grave(page, 1280, "light", only=("image-alt",))]
