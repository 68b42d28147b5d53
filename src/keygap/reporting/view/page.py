"""The page of ``keygap view``: the explorer of a report, with a script that asks the server."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from keygap.reporting.explorer.data import as_json
from keygap.reporting.explorer.section import Explorer, scripts_with, style
from keygap.reporting.view.explored import Explored


def page_of(explored: Explored) -> tuple[bytes, str]:
    """The page, and its Content Security Policy.

    The policy allows the page's own scripts by their hashes, pictures inside the data, and requests
    to the server that the page came from.
    """
    live = (files("keygap.reporting.view") / "js/live.js").read_text(encoding="utf-8")
    data = explored.page()
    explorer = Explorer(Markup(as_json(data)), scripts_with(live), style())
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; connect-src 'self'; "
        f"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; {explorer.policy}"
    )
    environment = Environment(
        loader=PackageLoader("keygap.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("view.html").render(
        explorer=explorer,
        model=data["runs"][0]["model"],
        benchmark=data["runs"][0]["benchmark"],
        tokens=data["all"],
        samples=data["n_samples"],
    )
    return text.encode(), policy
