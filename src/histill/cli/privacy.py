"""Privacy: a cohort under pseudonyms.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from histill.cli.options import ConfigOption

app = typer.Typer()


@app.command()
def pseudonymise(
    config: ConfigOption,
    key: Annotated[Path, typer.Option("--key", help="File of the secret key, readable by its owner alone.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make: sheets, links to slides, config.yaml.")],
    keep_identities: Annotated[
        bool, typer.Option("--keep-identities", help="Write identities.csv beside the key.")
    ] = False,
) -> None:
    """Copy a cohort's sheets with pseudonyms in place of patient and slide ids, and a config that names the copies."""
    from histill.privacy.pseudonymise import pseudonymise as write

    done = write(config, key, out, keep_identities=keep_identities)
    print(f"{done.config}: {done.patients} patients and {done.slides} slides under pseudonyms.")
    for note in done.notes:
        print(f"  note: {note}")
