"""The command line: one command a stage (called by the rules), and the commands people use, a module a group.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from histill.cli import bundle, demo, encoders, features, slides, stages
from histill.cli.options import DEFAULT_CONFIG, ConfigOption

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Whole-slide images and bulk transcriptomes in, a model that needs the slide alone out.",
)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version if asked to."""
    if show:
        from histill import __version__

        print(__version__)
        raise typer.Exit()


@app.command()
def validate(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check the config and its sheets, and say what would run."""
    from histill import plan

    checked = plan.load(config)
    patients = {slide.patient_id for slide in checked.sheets.slides.values()} | checked.sheets.clinical.rows.keys()
    print(f"{config}: no problems. {len(checked.sheets.slides)} slides, {len(patients)} patients in the sheets.")
    for note in checked.sheets.notes:
        print(f"  note: {note}")


for group in (stages, slides, bundle):
    app.add_typer(group.app)
for group in (demo, features, encoders):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


def main() -> None:
    """Run the command line; a `HistillError` ends it with its message and exit code 1."""
    from histill.errors import HistillError

    try:
        app()
    except HistillError as error:
        print(f"histill: {error}", file=sys.stderr)
        raise SystemExit(1) from None
