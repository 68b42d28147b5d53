"""What MkDocs does not do by itself for this site.

The changelog and the notes for contributors lie in the root of the repository, where a reader of
the repository looks for them, and are pages of the site too. Notebooks are pages, as they are
stored, without being run. Pages of the reference are made beforehand, by ``tools/reference.py``,
where keygap can be imported. A link from a page to a file that is no page becomes a link to the
repository, or plain text where ``[project.urls]`` names no repository.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "build" / "reference"  # where tools/reference.py writes
# File of the repository -> page of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "about/changelog.md",
    "CONTRIBUTING.md": "about/contributing.md",
}
# Code, which stays as it is, or a link: its text and its target.
_CODE = r"^(?P<fence>```+|~~~+).*?^(?P=fence)|(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)"
_LINK = r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)"
_CODE_OR_LINK = re.compile(f"{_CODE}|{_LINK}", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not Markdown files in ``docs``."""
    for name, page in PAGES.items():
        if page not in files.src_uris:
            files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            page = f"{file.src_uri.removesuffix('.ipynb')}.md"
            files.append(File.generated(config, page, content=_notebook(Path(file.abs_src_path))))
    for path in sorted(GENERATED.glob("*.md")):
        page = f"reference/{path.name}"
        files.append(File.generated(config, page, content=path.read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at pages of the site, or at the repository."""
    uri = page.file.src_uri
    made = {page: name for name, page in PAGES.items() if not (ROOT / "docs" / page).exists()}
    source = made.get(uri, f"docs/{uri}")

    def replaced(found: re.Match[str]) -> str:
        target = found["target"]
        if target is None or re.match(r"[a-z]+:|#|/", target):
            return found[0]
        place, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), place))
        link = _link(place, files, uri)
        if link is None:
            return found["text"]
        return f"{found['image']}[{found['text']}]({link}{'#' if anchor else ''}{anchor})"

    return _CODE_OR_LINK.sub(replaced, markdown)


def _link(place: str, files: Files, uri: str) -> str | None:
    """The link from a page to a file of the repository; None if there is no address."""
    page = PAGES.get(place, place.removeprefix("docs/") if place.startswith("docs/") else None)
    if page is not None and page.endswith(".ipynb"):
        page = f"{page.removesuffix('.ipynb')}.md"
    if page is not None and (place.startswith("docs/") or page in files.src_uris):
        return posixpath.relpath(page, posixpath.dirname(uri) or ".")
    repository = _repository()
    return repository and f"{repository}/blob/main/{place}"


def _repository() -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    urls = {name.lower(): url.rstrip("/") for name, url in project.get("urls", {}).items()}
    return urls.get("repository", urls.get("source"))


def _notebook(path: Path) -> str:
    """A notebook as Markdown, after a link to itself."""
    text, _ = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    title, _, rest = text.lstrip().partition("\n")
    link = f'<a href="{path.name}" download>Download this notebook</a>'  # to itself, and no page
    return f"{title}\n\n{link}\n{rest}"
