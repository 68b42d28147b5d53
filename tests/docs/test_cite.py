"""The citation is the same on the page, in a report and in CITATION.cff."""

from __future__ import annotations

from importlib.metadata import version

import yaml

from documentation import ROOT, blocks
from keygap.reporting.provenance import REFERENCES


def test_the_page_has_the_citation_that_a_report_prints() -> None:
    (block,) = blocks(ROOT / "docs" / "cite.md", "bibtex")
    assert block.text.strip() == REFERENCES["keygap"].replace("VERSION", version("keygap"))


def test_the_page_and_the_citation_file_agree() -> None:
    (block,) = blocks(ROOT / "docs" / "cite.md", "bibtex")
    software = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (author,) = software["authors"]
    for field, value in (("title", software["title"]), ("version", software["version"])):
        assert f"{{{value}}}" in block.text, field
    assert f"{{{{{author['name']}}}}}" in block.text
