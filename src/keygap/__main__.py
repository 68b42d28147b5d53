"""``python -m keygap`` and the ``keygap`` command.

Interrupts are handled from the first line on, because the import of the commands takes a while.
"""

from __future__ import annotations

from keygap import interrupts


def main() -> None:
    """Run the ``keygap`` command."""
    interrupts.install()
    from keygap.cli import main as run

    run()


if __name__ == "__main__":
    main()
