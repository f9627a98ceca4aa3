"""The synthetic cohorts.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from histill.cli.options import DEFAULT_CONFIG, ConfigOption

app = typer.Typer(no_args_is_help=True, help="The synthetic cohort.")


@app.command("make")
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


@app.command("planted")
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
