"""The command line: one command a stage (called by the rules), and the commands people use, a module a group.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

import signal
import sys
from types import TracebackType
from typing import Annotated, NoReturn

import typer

from histill.cli import bundle, demo, encoders, features, privacy, slides, stages, trace
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


for group in (stages, slides, bundle, privacy, trace):
    app.add_typer(group.app)
for group in (demo, features, encoders):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


def main() -> None:
    """Run the command line; a problem that the user can mend ends it with its message and exit code 1.

    SIGTERM, as from a cluster's scheduler, ends it as Ctrl-C does: with everything tidied up.
    """
    from histill.errors import HistillError
    from histill.storage import explained

    signal.signal(signal.SIGTERM, _end)
    sys.excepthook = _tell
    try:
        app()
    except HistillError as error:
        _fail(error)
    except Exception as error:
        problem = explained(error)
        if problem is None:
            raise
        _fail(problem)


def _fail(error: Exception) -> NoReturn:
    print(f"histill: {error}", file=sys.stderr)
    raise SystemExit(1) from None


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, which goes to a log, without the secrets that a library may put into its errors."""
    import traceback

    from histill.redact import hide

    print(hide("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _end(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one must not end the tidying up
    print(f"histill: ended by {signal.Signals(number).name}; run it again to go on", file=sys.stderr)
    raise SystemExit(128 + number)
