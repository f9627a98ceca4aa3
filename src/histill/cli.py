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
features_app = typer.Typer(no_args_is_help=True, help="Extract, import, export and check features.")
encoders_app = typer.Typer(no_args_is_help=True, help="Tile encoders.")
app.add_typer(demo_app, name="demo")
app.add_typer(features_app, name="features")
app.add_typer(encoders_app, name="encoders")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Config file (YAML, or results/config.json).")]
BatchOption = Annotated[str | None, typer.Option("--batch", help="Batch of slides; all slides without it.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Receipt to write.")]
TaskOption = Annotated[str, typer.Option("--task", help="Task of the config.")]
EncoderArgument = Annotated[str, typer.Argument(help="Encoder.")]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help="Variant of the ablation; the full models without it.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="Local file or folder in place of the hub's.")]
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


@demo_app.command("planted")
def demo_planted(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    patients: Annotated[int, typer.Option("--patients", min=30, help="Patients, of one slide each.")] = 400,
    tiles: Annotated[int, typer.Option("--tiles", help="20x tiles a slide; a quarter as many at 10x.")] = 160,
    dim: Annotated[int, typer.Option("--dim", help="Dimensions of the features.")] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")] = 0,
    permute_genes: Annotated[
        bool, typer.Option("--permute-genes", help="Give every patient the transcriptome of another one.")
    ] = False,
) -> None:
    """Make a cohort of features, without slides, in which tiles, genes and outcomes follow from known factors."""
    from histill.demo.planted import make
    from histill.features.store import write_store

    make(out, write_store, patients=patients, tiles=tiles, dim=dim, seed=seed, permute_genes=permute_genes)
    print(f"{out}: run it with snakemake --cores all --configfile {out}/config.yaml")


def _slide_stage(stage: str, run, config: Path, batch: str | None, out: Path | None, **options) -> None:
    from histill import batches, plan

    checked = plan.load(config)
    slides = checked.slides(batch) if batch else list(checked.sheets.slides.values())
    receipts = run(slides, config=checked.config, results=checked.results, **options)
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
def features_extract(
    config: ConfigOption = DEFAULT_CONFIG,
    batch: BatchOption = None,
    out: OutOption = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; features.threads without.")
    ] = None,
) -> None:
    """Encode every kept tile at both magnifications."""
    from histill.features import extract as stage

    _slide_stage("features", stage.run, config, batch, out, threads=threads)


@features_app.command("import")
def features_import(
    config: ConfigOption = DEFAULT_CONFIG,
    table: Annotated[
        Path | None, typer.Option("--table", help="Table of one vector a slide, without a config.")
    ] = None,
    bags: Annotated[
        Path | None, typer.Option("--bags", help="slides.csv of bags (HDF5, h5ad, pt), without a config.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Where the features come from.")] = "imported",
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path("results"),
) -> None:
    """Import features made elsewhere: one table, or bags of tiles, as the config or --table or --bags says."""
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


@features_app.command("export")
def features_export(
    to: Annotated[str, typer.Option("--to", help="trident, clam, pt, h5ad or lazyslide.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    config: ConfigOption = DEFAULT_CONFIG,
    store: Annotated[
        list[Path] | None, typer.Option("--store", help="Store of one slide, without a config; may be repeated.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Whose features; features.encoder of the config without it.")
    ] = None,
    magnification: Annotated[
        str | None, typer.Option("--magnification", help="10x or 20x; all that a store has without it.")
    ] = None,
) -> None:
    """Write features in the layout of another tool."""
    from histill import plan
    from histill.features import exports

    stores, notes, overlap = store or [], [], None
    if not store:
        checked = plan.load(config)
        stores, notes = exports.stores_of(checked.results, encoder or checked.config["features"]["encoder"])
        overlap = checked.config["tiles"]["overlap"]
    done = exports.export(stores, to=to, out=out, magnification=magnification, overlap=overlap)
    print(f"{out}: {len(done.files)} files of {done.slides} slides")
    for note in [*notes, *done.notes]:
        print(f"  note: {note}")


@features_app.command("verify")
def features_verify(stores: Annotated[list[Path], typer.Argument(help="Stores (<slide>.zarr) to check.")]) -> None:
    """Compare every file of stores with its digest."""
    from histill.errors import HistillError
    from histill.features.store import verify

    damaged = 0
    for store in stores:
        try:
            record = verify(store)
        except HistillError as error:
            damaged += 1
            print(error)
        else:
            rows = ", ".join(f"{name} {group['rows']} rows" for name, group in record["groups"].items())
            print(f"{store}: whole ({rows})")
    raise typer.Exit(1 if damaged else 0)


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


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder of histill export or histill pull.")],
    slides: Annotated[list[Path], typer.Argument(help="Slides, each predicted for itself.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to: one folder a slide in it.")],
    mpp: Annotated[
        float | None, typer.Option("--mpp", min=0.0, help="µm per pixel of all slides; as they say without it.")
    ] = None,
    weights: WeightsOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=1, help="Seconds a slide may take in a stage.")
    ] = None,
    memory_mb: Annotated[int | None, typer.Option("--memory-mb", min=200, help="MiB a slide may take.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep tissue, tiles and features, to go on from.")] = False,
) -> None:
    """Predict raw slides with a bundle, without genes: JSON, heatmaps, tiles for QuPath, and a page to look at."""
    from histill.bundle import slide_run

    limits = {"time_limit": time_limit, "memory_mb": memory_mb}
    done = slide_run.run(
        bundle, slides, out, mpp=mpp, weights=weights, device=device, threads=threads, keep=keep, **limits
    )
    for outcome in done:
        print(slide_run.told(outcome), file=sys.stderr if outcome.failure else sys.stdout)
    raise typer.Exit(1 if any(outcome.failure for outcome in done) else 0)


@app.command()
def doctor(
    slides: Annotated[list[Path], typer.Argument(help="Slides to look at.")],
    mpp: Annotated[
        float | None, typer.Option("--mpp", min=0.0, help="µm per pixel, as the sheet would say it.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Config; defaults without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what was found in slides, what will be done with them, and the mend of every problem."""
    import json
    from dataclasses import asdict

    from histill import config as configuration
    from histill.slides.doctor import doctor as examine
    from histill.slides.doctor import render

    options = configuration.load(config) if config else configuration.complete({"cohort": {}})
    findings = examine(slides, mpp=mpp, config=options)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        print(render(findings))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def view(
    slide: Annotated[Path, typer.Argument(help="Slide to draw.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write: PNG or JPEG.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Config; defaults without it.")] = None,
    results: Annotated[
        Path | None, typer.Option("--results", help="Results folder; that of the config without it.")
    ] = None,
    mpp: Annotated[
        float | None, typer.Option("--mpp", min=0.0, help="µm per pixel, as the sheet would say it.")
    ] = None,
    magnification: Annotated[str, typer.Option("--magnification", help="Grid to draw: 10x, 20x or both.")] = "both",
    max_px: Annotated[
        int, typer.Option("--max-px", min=200, max=8000, help="Longer side of the slide, pixels.")
    ] = 1600,
) -> None:
    """Draw a slide: tissue and holes, the grid at both magnifications, flagged tiles, a legend, a scale bar."""
    from histill import config as configuration
    from histill.slides.view import view as draw

    if results and not config and (results / "config.json").exists():
        config = results / "config.json"
    options = configuration.load(config) if config else configuration.complete({"cohort": {}})
    stored = results or (Path(options["results"]) if config else None)
    scene = draw(slide, out, config=options, mpp=mpp, results=stored, magnification=magnification, max_px=max_px)
    print(f"{out}: {slide}, {scene.note}")
    for remark in scene.remarks:
        print(f"  note: {remark}")


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
def encoders_list(
    slide: Annotated[bool, typer.Option("--slide", help="Slide encoders in place of tile encoders.")] = False,
) -> None:
    """List the encoders."""
    from histill.encoders import listing

    print("\n".join(listing.slide_encoders() if slide else listing.tile_encoders()))


@encoders_app.command("show")
def encoders_show(name: EncoderArgument) -> None:
    """Show an encoder's recipe."""
    import json

    from histill.encoders import slide_recipes
    from histill.encoders.recipes import get

    recipe = slide_recipes.registry().get(name) or get(name)
    print(json.dumps(recipe.as_dict(), indent=1, ensure_ascii=False))


@encoders_app.command("check")
def encoders_check(name: EncoderArgument, weights: WeightsOption = None) -> None:
    """Say whether an encoder can be used here, and what to do. Nothing is downloaded."""
    from histill.encoders import checking, slide_recipes

    found = checking.check_slide(name) if name in slide_recipes.registry() else checking.check(name, given=weights)
    print(found.text)
    raise typer.Exit(0 if found.ready else 1)


@encoders_app.command("prefetch")
def encoders_prefetch(
    name: EncoderArgument,
    weights: WeightsOption = None,
    out: OutOption = None,
    verify: Annotated[bool, typer.Option(help="Load the weights into the network once, to see that they fit.")] = True,
) -> None:
    """Fetch an encoder's weights into the hub's cache, check them, and write the receipt."""
    from histill.encoders.prefetch import prefetch
    from histill.encoders.recipes import get

    found = prefetch(get(name), given=weights, out=out, verify=verify)
    for file, sha256 in found.sha256.items():
        print(f"{found.folder / file}  sha256 {sha256}")


@app.command()
def export(
    task: TaskOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle.")],
    config: ConfigOption = DEFAULT_CONFIG,
    method: Annotated[str, typer.Option("--method", help="Method of methods.run.")] = "disentangled",
    stage: Annotated[str, typer.Option("--stage", help="Stage of the method that needs the slide alone.")] = "student",
    licence: Annotated[str, typer.Option("--licence", help="Licence of the bundle, as the hub names it.")] = "other",
) -> None:
    """Write a bundle: the models of all folds, all that it takes to use them on a slide, and a model card."""
    from histill import config as configuration
    from histill.bundle.export import export as write

    write(config=configuration.load(config), task=task, method=method, stage=stage, out=out, licence=licence)


@app.command()
def push(
    bundle: Annotated[Path, typer.Argument(help="Folder of histill export.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Only into a private repository.")] = False,
) -> None:
    """Upload a bundle to the hub, with the token of HF_TOKEN or of a login."""
    from histill.bundle import hub

    print(hub.push(bundle, repository, private=private))


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit; main without it.")] = None,
) -> None:
    """Download a bundle from the hub and check every file."""
    from histill.bundle import hub

    print(f"{out}: {repository} at {hub.pull(repository, out, revision=revision)}")
