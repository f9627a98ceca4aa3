"""The encoders as lines of text."""

from __future__ import annotations

from histill.encoders import plugins, recipes, slide_recipes
from histill.encoders.hub import is_pinned


def tile_encoders() -> list[str]:
    """A header, one line an encoder, and one a broken plug-in."""
    head = ("encoder", "dim", "µm/px", "tile px", "million", "precision", "gate", "revision", "licence")
    rows = [_row(recipe) for recipe in recipes.registry().values()]
    return [*_table([head, *rows]), *(f"problem: {problem}" for problem in plugins.load().problems)]


def slide_encoders() -> list[str]:
    """A header and one line a slide encoder."""
    head = ("slide encoder", "dim", "tile encoder", "tile px", "µm/px", "code", "gate", "licence")
    rows = [
        (r.name, str(r.dim), r.tile_encoder, str(r.tile), f"{r.mpp:g}", r.code, gate(r.gated), r.licence)
        for r in slide_recipes.registry().values()
    ]
    return _table([head, *rows])


def gate(gated: bool | None) -> str:
    """In one word."""
    return {True: "gated", False: "open"}.get(gated, "unknown")


def _row(recipe: recipes.EncoderRecipe) -> tuple[str, ...]:
    low, high = recipe.mpp
    if recipe.hub is None:
        revision = "local file" if recipe.has_weights else "-"
    else:
        revision = recipe.revision[:10] if is_pinned(recipe) else "unpinned"
    return (
        recipe.name,
        str(recipe.dim),
        f"{low:g}-{high:g}",
        "/".join(str(side) for side in recipe.tile) if recipe.tile else "any",
        f"{recipe.parameters:g}" if recipe.parameters else "-",
        recipe.precision,
        gate(recipe.gated) if recipe.has_weights else "-",
        revision,
        recipe.licence,
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
