"""Features: extraction, import, export, checks.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from histill.cli.batch import run_slides
from histill.cli.options import DEFAULT_CONFIG, BatchOption, ConfigOption, OutOption

app = typer.Typer(no_args_is_help=True, help="Extract, import, export and check features.")


@app.command("extract")
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

    run_slides("features", stage.run, config, batch, out, threads=threads)


@app.command("import")
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


@app.command("export")
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


@app.command("verify")
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
