"""One command a stage: what the rules of the workflow call.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from histill.cli.batch import run_slides
from histill.cli.options import DEFAULT_CONFIG, BatchOption, ConfigOption, OutOption, TaskOption, VariantOption

app = typer.Typer()


@app.command()
def inspect(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Open slides: size, levels, resolution and where it comes from."""
    from histill.slides import inspect as stage

    run_slides("inspect", stage.run, config, batch, out)


@app.command()
def tissue(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Find tissue."""
    from histill.slides import segment as stage

    run_slides("tissue", stage.run, config, batch, out)


@app.command()
def tiles(config: ConfigOption = DEFAULT_CONFIG, batch: BatchOption = None, out: OutOption = None) -> None:
    """Lay the aligned 10x and 20x grid over the tissue."""
    from histill.slides import tile as stage

    run_slides("tiles", stage.run, config, batch, out)


@app.command()
def collect(
    stage: Annotated[str, typer.Argument(help="Stage whose batch receipts are collected.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Collect the batch receipts of a stage into its receipt."""
    from histill import batches, plan, stages
    from histill.errors import HistillError

    if stage not in stages.SLIDE_STAGES:
        known = ", ".join(stages.SLIDE_STAGES)
        raise HistillError(f"stage '{stage}' has no batches to collect", mend=f"stages that have: {known}")
    checked = plan.load(config, look=False)
    if checked.imports:
        raise HistillError("features are imported: there are no batches", mend="run: histill features import")
    receipts = checked.results / "receipts"
    paths = [receipts / stage / f"{batch}.json" for batch in checked.batches]
    collected = batches.collect(paths)
    batches.check_current(checked.results, stage, collected)
    batches.write_batch(receipts / f"{stage}.json", stage, collected)


@app.command()
def transcriptome(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read, check and normalise the expression table."""
    from histill import plan
    from histill.transcriptome import stage

    checked = plan.load(config, look=False)
    stage.run(path=checked.sheets.expression, config=checked.config, results=checked.results)


@app.command()
def cohort(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Join slides, transcriptomes and outcomes by patient, and make the folds."""
    from histill import plan
    from histill.cohort import stage

    checked = plan.load(config, look=False)
    stage.run(sheets=checked.sheets, config=checked.config, results=checked.results)


@app.command()
def audit(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Look for patients who are one under two ids: a model that has seen one must not be tested on the other."""
    from histill import config as configuration
    from histill.cohort import audit as stage

    options = configuration.load(config)
    stage.run(config=options, results=options["results"])


@app.command()
def train(
    task: TaskOption,
    method: Annotated[str, typer.Option("--method", help="Method of methods.run.")],
    stage: Annotated[str, typer.Option("--stage", help="Stage of the method (teacher, student, train).")],
    config: ConfigOption = DEFAULT_CONFIG,
    fold: Annotated[int | None, typer.Option("--fold", help="One fold only (with --seed).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="One seed only (with --fold).")] = None,
    variant: VariantOption = None,
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
        task=task,
        method=method,
        stage=stage,
        config=options,
        results=options["results"],
        only=only,
        variant=variant,
    )
    if out:
        write_json(out, {"stage": f"{method}/{stage}", "task": task, "runs": receipts})


@app.command("predict-stage")
def predict_stage(task: TaskOption, variant: VariantOption = None, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Predict every patient with every trained run of a task, or of a variant of the ablation."""
    from histill import config as configuration
    from histill.methods import predict as stage

    options = configuration.load(config)
    stage.run(task=task, config=options, results=options["results"], variant=variant)


@app.command()
def evaluate(task: TaskOption, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Score the test folds: metrics with intervals, paired differences, survival curves."""
    from histill import config as configuration
    from histill.evaluation import stage

    options = configuration.load(config)
    stage.run(task=task, config=options, results=Path(options["results"]))


@app.command()
def ablation(task: TaskOption, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Score the disentangled method against itself with parts taken away: table and picture."""
    from histill import config as configuration
    from histill.evaluation import ablation as stage
    from histill.report import ablation_figure

    options = configuration.load(config)
    results = Path(options["results"])
    table = stage.run(task=task, config=options, results=results)
    ablation_figure.write(results / "evaluation" / f"ablation-{task}.png", table)


@app.command()
def benchmark(
    task: TaskOption,
    config: ConfigOption = DEFAULT_CONFIG,
    only_predict: Annotated[bool, typer.Option("--predict", help="Predict with its models, and stop.")] = False,
) -> None:
    """Score all methods of the benchmark on the same patients: table, page and figure."""
    from histill import config as configuration

    options = configuration.load(config)
    if only_predict:
        from histill.methods import benchmark as methods
        from histill.methods import predict as prediction

        name = methods.RECEIPT.format(task=task)
        own = methods.configure(options)
        prediction.run(task=task, config=own, results=options["results"], receipt_name=name)
        return
    from histill.evaluation import benchmark as stage

    stage.run(task=task, config=options, results=options["results"])


@app.command()
def report(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Write the self-contained HTML report."""
    from histill import config as configuration
    from histill.report import stage

    options = configuration.load(config)
    stage.run(config=options, results=Path(options["results"]))
