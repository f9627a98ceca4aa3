"""The command line: one command a stage (called by the rules), and the commands people use.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Whole-slide images and bulk transcriptomes in, a model that needs the slide alone out.",
)
demo_app = typer.Typer(no_args_is_help=True, help="The synthetic cohort.")
features_app = typer.Typer(no_args_is_help=True, help="Extract features, or import features made elsewhere.")
encoders_app = typer.Typer(no_args_is_help=True, help="Tile encoders.")
app.add_typer(demo_app, name="demo")
app.add_typer(features_app, name="features")
app.add_typer(encoders_app, name="encoders")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Config file (YAML, or results/config.json).")]
BatchOption = Annotated[str | None, typer.Option("--batch", help="Batch of slides; all slides without it.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Receipt to write.")]
TaskOption = Annotated[str, typer.Option("--task", help="Task of the config.")]
DEFAULT_CONFIG = Path("config.yaml")


def main() -> None:
    """Run the command line; a `HistillError` ends it with its message and exit code 1."""
    from histill.errors import HistillError

    try:
        app()
    except HistillError as error:
        print(f"histill: {error}", file=sys.stderr)
        raise SystemExit(1) from None


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


@demo_app.command("make")
def demo_make(
    config: ConfigOption = DEFAULT_CONFIG,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; <results>/demo without it.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that paint slides.")] = 1,
) -> None:
    """Make the synthetic cohort of the config: slides, sheets, counts."""
    from histill import config as configuration
    from histill.demo.make import make
    from histill.errors import HistillError

    options = configuration.load(config)
    if "demo" not in options:
        raise HistillError(f"{config} has no key 'demo'", mend="add 'demo: {}' in place of 'cohort'")
    make(options["demo"], out or Path(options["results"]) / "demo", workers=workers)


def _slide_stage(stage: str, run, config: Path, batch: str | None, out: Path | None) -> None:
    from histill import batches, plan

    checked = plan.load(config)
    slides = checked.slides(batch) if batch else list(checked.sheets.slides.values())
    receipts = run(slides, config=checked.config, results=checked.results)
    if out:
        batches.write_batch(out, stage, receipts)


@app.command()
def inspect(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Open slides: size, levels, resolution and where it comes from."""
    from histill.slides import inspect as stage

    _slide_stage("inspect", stage.run, config, batch, out)


@app.command()
def tissue(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Find tissue."""
    from histill.slides import segment as stage

    _slide_stage("tissue", stage.run, config, batch, out)


@app.command()
def tiles(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Lay the aligned 10x and 20x grid over the tissue."""
    from histill.slides import tile as stage

    _slide_stage("tiles", stage.run, config, batch, out)


@features_app.command("extract")
def features_extract(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Encode every kept tile at both magnifications."""
    from histill.features import extract as stage

    _slide_stage("features", stage.run, config, batch, out)


@features_app.command("import")
def features_import(
    config: ConfigOption = DEFAULT_CONFIG,
    table: Annotated[
        Path | None, typer.Option("--table", help="Table of one vector a slide, without a config.")
    ] = None,
    bags: Annotated[Path | None, typer.Option("--bags", help="slides.csv of HDF5 bags, without a config.")] = None,
    name: Annotated[str, typer.Option("--name", help="Where the features come from.")] = "imported",
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path("results"),
) -> None:
    """Import features made elsewhere: one table, or HDF5 bags, as the config or --table or --bags says."""
    from histill import plan
    from histill.errors import HistillError
    from histill.features import imports

    if table and bags:
        raise HistillError("--table and --bags are two kinds of import", mend="give one of them")
    given: dict | Path = config
    if table or bags:
        features = {"source": "table" if table else "bags", "encoder": name, "table": str(table) if table else None}
        given = {"results": str(results), "cohort": {"slides": str(bags) if bags else None}, "features": features}
    checked = plan.load(given)
    imports.run(config=checked.config, results=checked.results, sheets=checked.sheets)


@app.command()
def collect(
    stage: Annotated[str, typer.Argument(help="Stage whose batch receipts are collected.")],
    out: Annotated[Path, typer.Option("--out", help="Receipt of the whole stage.")],
    receipts: Annotated[Path, typer.Option("--receipts", help="Folder of the batch receipts.")],
    batch: Annotated[list[str], typer.Option("--batch", help="Batches to collect.")],
) -> None:
    """Collect batch receipts into one receipt of a stage."""
    from histill import batches

    batches.write_batch(out, stage, batches.collect(receipts / f"{name}.json" for name in batch))


@app.command()
def transcriptome(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read, check and normalise the expression table."""
    from histill import plan
    from histill.transcriptome import stage

    checked = plan.load(config)
    stage.run(path=checked.sheets.expression, config=checked.config, results=checked.results)


@app.command()
def cohort(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Join slides, transcriptomes and outcomes by patient, and make the folds."""
    from histill import plan
    from histill.cohort import stage

    checked = plan.load(config)
    stage.run(sheets=checked.sheets, config=checked.config, results=checked.results)


@app.command()
def train(
    task: TaskOption,
    method: Annotated[str, typer.Option("--method", help="Method of methods.run.")],
    stage: Annotated[str, typer.Option("--stage", help="Stage of the method (teacher, student, train).")],
    config: ConfigOption = DEFAULT_CONFIG,
    fold: Annotated[int | None, typer.Option("--fold", help="One fold only (with --seed).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="One seed only (with --fold).")] = None,
    out: OutOption = None,
) -> None:
    """Train one stage of a method for a task: all folds and seeds, or one."""
    from histill import config as configuration
    from histill.errors import HistillError
    from histill.methods import train as stage_module
    from histill.provenance import write_json

    if (fold is None) != (seed is None):
        raise HistillError("--fold and --seed belong together", mend="give both or neither")
    options = configuration.load(config)
    only = None if fold is None else (fold, seed)
    receipts = stage_module.run(
        task=task, method=method, stage=stage, config=options, results=options["results"], only=only
    )
    if out:
        write_json(out, {"stage": f"{method}/{stage}", "task": task, "runs": receipts})


@app.command()
def predict(task: TaskOption, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Predict every patient with every trained run of a task."""
    from histill import config as configuration
    from histill.methods import predict as stage

    options = configuration.load(config)
    stage.run(task=task, config=options, results=options["results"])


@app.command()
def evaluate(task: TaskOption, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Score the test folds: metrics with intervals, paired differences, survival curves."""
    from histill import config as configuration
    from histill.evaluation import stage

    options = configuration.load(config)
    stage.run(task=task, config=options, results=Path(options["results"]))


@app.command()
def report(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Write the self-contained HTML report."""
    from histill import config as configuration
    from histill.report import stage

    options = configuration.load(config)
    stage.run(config=options, results=Path(options["results"]))


@app.command()
def doctor(
    slides: Annotated[list[Path], typer.Argument(help="Slides to look at.")],
    mpp: Annotated[float | None, typer.Option("--mpp", help="µm per pixel, as the sheet would say it.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Config; defaults without it.")] = None,
) -> None:
    """Say what was found in slides, what will be done with them, and the mend of every problem."""
    from histill import config as configuration
    from histill.slides.doctor import doctor as examine
    from histill.slides.doctor import render

    options = configuration.load(config) if config else configuration.complete({"cohort": {}})
    findings = examine(slides, mpp=mpp, config=options)
    print(render(findings))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def scan(
    folder: Annotated[Path, typer.Argument(help="Folder of slides.")],
    out: Annotated[Path, typer.Option("--out", help="Sheet to write.")] = Path("slides.csv"),
) -> None:
    """Draft slides.csv from a folder of slides; check its patient_id column before use."""
    from histill.slides.scan import scan as find
    from histill.slides.scan import write_sheet

    rows = find(folder)
    write_sheet(rows, out)
    print(f"{out}: {len(rows)} slides. Check the column patient_id: it was guessed from the file names.")


@encoders_app.command("list")
def encoders_list() -> None:
    """List the encoders."""
    from histill.encoders.recipes import registry

    for name, entry in registry().items():
        gate = "gated" if entry.gated else "open"
        print(f"{name:20} {entry.dim:5d}-d  {entry.mpp[0]:g}-{entry.mpp[1]:g} µm/px  {gate:6} {entry.licence}")


@encoders_app.command("show")
def encoders_show(name: Annotated[str, typer.Argument(help="Encoder.")]) -> None:
    """Show an encoder's recipe."""
    import json

    from histill.encoders.recipes import get

    print(json.dumps(get(name).as_dict(), indent=1))
