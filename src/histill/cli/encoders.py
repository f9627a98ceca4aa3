"""Tile encoders: what there is, and their weights.

Nothing heavy is imported here; each command imports what it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from histill.cli.options import EncoderArgument, OutOption, WeightsOption

app = typer.Typer(no_args_is_help=True, help="Tile encoders.")


@app.command("list")
def encoders_list(
    slide: Annotated[bool, typer.Option("--slide", help="Slide encoders in place of tile encoders.")] = False,
) -> None:
    """List the encoders."""
    from histill.encoders import listing

    print("\n".join(listing.slide_encoders() if slide else listing.tile_encoders()))


@app.command("show")
def encoders_show(name: EncoderArgument) -> None:
    """Show an encoder's recipe."""
    import json

    from histill.encoders import slide_recipes
    from histill.encoders.recipes import get

    recipe = slide_recipes.registry().get(name) or get(name)
    print(json.dumps(recipe.as_dict(), indent=1, ensure_ascii=False))


@app.command("check")
def encoders_check(name: EncoderArgument, weights: WeightsOption = None) -> None:
    """Say whether an encoder can be used here, and what to do. Nothing is downloaded."""
    from histill.encoders import checking, slide_recipes

    found = checking.check_slide(name) if name in slide_recipes.registry() else checking.check(name, given=weights)
    print(found.text)
    raise typer.Exit(0 if found.ready else 1)


@app.command("prefetch")
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
