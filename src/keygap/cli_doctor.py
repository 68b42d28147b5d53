"""The command ``keygap doctor``."""

from __future__ import annotations

from keygap.cli_output import Output, with_output
from keygap.errors import UserError


@with_output
def doctor(say: Output) -> None:
    """Say what this machine has and lacks for keygap.

    Exit status 2 if keygap does not work here. What only some commands need is named and is no
    failure.
    """
    import pandas as pd

    from keygap.doctor import Finding, examine

    found = examine()
    table = pd.DataFrame(found, columns=list(Finding.__annotations__))
    say.result(table=table, then="keygap check MODEL")
    if wrong := [each.check for each in found if each.result == "FAIL"]:
        raise UserError(f"keygap does not work here: see {', '.join(wrong)}")
