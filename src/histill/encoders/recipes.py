"""Encoder recipes: the contract between a tile and its vector."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from histill.errors import HistillError

REGISTRY = Path(__file__).with_name("registry.yaml")


@dataclass(frozen=True)
class EncoderRecipe:
    """One entry of `registry.yaml`.

    Attributes
    ----------
    builder
        `descriptor` (no weights) or `timm`.
    dim
        Length of the vector.
    mpp
        Range of µm per pixel the encoder was made for, both ends included.
    input
        Tile side in pixels it is given, or `any`.
    resize
        Side the tile is resized to before it is normalised by `mean` and `std` (of values in 0..1).
    pooling
        `model` (the network pools), or `class_and_mean` (class token joined with the mean of the patch tokens after
        `prefix_tokens`).
    precision
        `float32`, `float16` or `bfloat16`: the autocast type on a GPU. On a CPU everything runs in float32.
    seed
        Of the random weights, where `hub` is None.
    """

    name: str
    builder: str
    dim: int
    mpp: tuple[float, float]
    licence: str
    gated: bool
    source: str
    input: int | str = "any"
    hub: str | None = None
    revision: str | None = None
    architecture: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    pooling: str = "model"
    prefix_tokens: int = 1
    resize: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    precision: str = "float32"
    seed: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fits(self, mpp: float) -> bool:
        """Whether the encoder was made for this resolution."""
        return self.mpp[0] <= mpp <= self.mpp[1]


@cache
def registry() -> dict[str, EncoderRecipe]:
    """All recipes by name."""
    import yaml

    entries = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    recipes = {}
    for name, entry in entries.items():
        tuples = {key: tuple(entry[key]) for key in ("mpp", "mean", "std") if key in entry}
        recipes[name] = EncoderRecipe(name=name, **{**entry, **tuples})
    return recipes


def get(name: str) -> EncoderRecipe:
    """The recipe of an encoder; an unknown name is an error that lists the known ones."""
    recipes = registry()
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        known = ", ".join(recipes)
        raise HistillError(f"config key 'features.encoder': no encoder '{name}'{hint}", mend=f"choose one of: {known}")
    return recipes[name]


def check(name: str, *, tile_size: int, mpps: dict[str, float], allow_off_recipe: bool) -> list[str]:
    """What would be off-recipe about encoding tiles of `tile_size` px at these resolutions, one line each.

    Raises
    ------
    HistillError
        When something is off-recipe and the config does not allow it.
    """
    recipe = get(name)
    off = [
        f"encoder '{name}' is made for {recipe.mpp[0]:g} to {recipe.mpp[1]:g} µm per pixel; {magnification} is {mpp:g}"
        for magnification, mpp in mpps.items()
        if not recipe.fits(mpp)
    ]
    if recipe.input != "any" and tile_size != recipe.input:
        off.append(f"encoder '{name}' is made for tiles of {recipe.input} px; tiles.size is {tile_size}")
    if off and not allow_off_recipe:
        mend = "choose another features.encoder, or set features.allow_off_recipe: true (it is then said in the report)"
        raise HistillError("; ".join(off), mend=mend)
    return off
