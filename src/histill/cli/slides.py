"""Slides, for people: what is in them, and the sheet that names them.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


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
