"""Where results come from.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from histill.cli.options import DEFAULT_CONFIG, ConfigOption

app = typer.Typer()


@app.command()
def trace(
    result: Annotated[Path, typer.Argument(help="Any file or folder of a run's results, a bundle, or a prediction.")],
    slides: Annotated[bool, typer.Option("--slides", help="Name every slide.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read feature stores whole.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which slides, recipes, versions, config and commit a result comes from, and check every digest."""
    from histill.trace import run

    found, text = run.trace(result, slides=slides, deep=deep)
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else text)
    for problem in found["problems"]:
        print(f"{problem['kind']}: {problem['what']} ({problem['step']})\n  mend: {problem['mend']}", file=sys.stderr)
    raise typer.Exit(1 if found["problems"] else 0)


@app.command()
def manifest(
    config: ConfigOption = DEFAULT_CONFIG,
    workflow: Annotated[
        Path | None,
        typer.Option(
            "--workflow", exists=True, dir_okay=False, help="The Snakefile of the run, which goes into the crate."
        ),
    ] = None,
) -> None:
    """Write ro-crate-metadata.json, which makes the results a Workflow Run RO-Crate."""
    from histill import config as configuration
    from histill.trace import crate

    options = configuration.load(config)
    crate.write(Path(options["results"]), options, snakefile=workflow)
