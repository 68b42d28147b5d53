"""``keygap view``: look at all tokens of a run in the browser."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from keygap.arguments import folder_of
from keygap.cli_options import Folder, Seed
from keygap.cli_output import Output, with_output

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port. Default: a free one.")]
Browser = Annotated[bool, typer.Option(help="Open the page in a browser.")]
Atlas = Annotated[bool, typer.Option("--atlas", help="Open the projection in Embedding Atlas.")]


@with_output
def view(
    folder: Folder,
    say: Output,
    port: Port = 0,
    browser: Browser = True,
    atlas: Atlas = False,
    seed: Seed = 0,
) -> None:
    """Look at all tokens of a run in the browser. Ctrl-C ends it."""
    from keygap.store import Store

    place = folder_of(folder, "DIR")
    if atlas:
        from keygap.reporting.view.atlas import open_atlas

        open_atlas(Store(place), port)
        return
    from keygap.reporting.view import Explored, ViewServer

    with ViewServer(Explored(Store(place), seed), port) as server:
        say.result(
            f"{server.url} shows {place} until Ctrl-C; only this computer can open it",
            facts={"url": server.url, "folder": place},
        )
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()
