"""Bundles: made, shared, and asked about a slide.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from histill.cli.options import DEFAULT_CONFIG, ConfigOption, TaskOption, WeightsOption

app = typer.Typer()


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
