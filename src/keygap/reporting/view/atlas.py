"""``keygap view --atlas``: the run's projection in Embedding Atlas, an optional package.

https://apple.github.io/embedding-atlas. It runs as a program of its own on the loopback interface,
on a table with the projected tokens of the first site and layer: coordinates of different layers
have no common plane.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from keygap import interrupts
from keygap.errors import UserError
from keygap.optional import require
from keygap.reporting.explorer.words import readable
from keygap.reporting.run import projection_of
from keygap.store import Store

PORT = 5055  # its own default


def open_atlas(store: Store, port: int = 0) -> None:
    """Show the projection of a run until the program is ended.

    Args:
        store: the run.
        port: to listen on; 0 means that of Embedding Atlas, or a free one near it.

    Raises:
        UserError: the package is not installed, the run was not projected, or the program fails.
    """
    require("embedding_atlas", "atlas", "keygap view --atlas")
    projection = projection_of(store.root)
    if projection is None or projection.empty:
        raise UserError(f"{store.root} has no projection: run keygap project {store.root}")
    with interrupts.tidied(), tempfile.TemporaryDirectory(prefix="keygap-") as folder:
        path = Path(folder) / "projection.parquet"
        table_of(projection).to_parquet(path, index=False)
        done = subprocess.run(command(path, port), check=False)
    if done.returncode:
        raise UserError(f"Embedding Atlas ended with status {done.returncode}")


def table_of(projection: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first site and layer, with words as people write them."""
    first = projection.iloc[0]
    here = (projection["site"] == first["site"]) & (projection["layer"] == first["layer"])
    found = projection[here].reset_index(drop=True)
    return found.assign(word=readable(found["token"].astype(str)))


def command(path: Path, port: int) -> list[str]:
    """The command that shows a table.

    Args:
        path: of the table.
        port: to listen on; 0 means any.
    """
    where = ["--port", str(port), "--no-auto-port"] if port else ["--port", str(PORT)]
    columns = ["--x", "x", "--y", "y", "--text", "word", "--disable-projection"]
    program = [sys.executable, "-m", "embedding_atlas.cli", str(path)]
    return [*program, *columns, "--host", "127.0.0.1", *where]
