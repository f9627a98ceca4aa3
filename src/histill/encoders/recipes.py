"""Encoder recipes: the contract between a tile and its vector."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from histill.errors import HistillError

REGISTRY = Path(__file__).with_name("registry.yaml")

BUILDERS = ("descriptor", "timm", "timm_file", "composed", "transformers", "torch_file", "package", "plugin")
POOLINGS = ("model", "class", "mean", "class_and_mean", "average")
PRECISIONS = ("float32", "float16", "bfloat16")
STAINS = ("none", "macenko", "reinhard")
INTERPOLATIONS = ("bilinear", "bicubic")
_TUPLES = ("mpp", "mean", "std", "tile", "ignore")


@dataclass(frozen=True)
class EncoderRecipe:
    """One entry of `registry.yaml`, or of a plug-in.

    Attributes
    ----------
    builder
        `descriptor` (no network), `timm` (a hub repository in timm's layout), `timm_file` (a timm architecture and a
        file of weights), `composed` (put together here from timm's parts), `transformers`, `torch_file` (a torchvision
        architecture and a file of weights), `package` (an architecture that another package registers with timm) or
        `plugin`.
    dim
        Length of the vector.
    mpp
        Range of µm per pixel of the tiles the encoder was made for, both ends included.
    tile
        Sides in pixels of the tiles the encoder is used with, the authors' own first; None is any.
    input
        Side in pixels of what the network is given, or `any`.
    resize, crop
        The tile is resized to `resize`, antialiased, and its centre of `crop` px is cut out; None leaves a step out.
    mean, std
        Normalisation of values in 0..1, red, green, blue.
    pooling
        `model` (the network pools), `class` (class token), `mean` (mean of the patch tokens, which come after
        `prefix_tokens`), `class_and_mean` (both, joined), or `average` (of a feature map).
    precision
        `float32`, `float16` or `bfloat16`: the autocast type on a GPU. On a CPU everything runs in float32.
    hub, repo_type, revision, file
        Repository of the weights, `model` or `dataset`, its commit (None: not pinned, the newest), and the file (None:
        the builder's usual ones).
    architecture, arguments
        What the builder makes the network of. `parameters` is its size in millions, as built here.
    layout, ignore
        How the keys of the file are named (`histill.encoders.layouts`), and patterns of keys without use.
    package, install, forward
        Builder `package`: what to import, how to get it, and the keyword arguments of the forward pass.
    gated
        Whether the hub hands the weights out only after its terms were accepted; None where nobody could say. It is
        asked again when the weights are fetched.
    stain_normalisation
        `none`, `macenko` or `reinhard`: what was done to the stain of the slides it was made with.
    seed
        Of random weights, for tests.
    plugin
        Distribution and version that the recipe comes from.
    """

    name: str
    builder: str
    dim: int
    mpp: tuple[float, float]
    licence: str
    source: str
    gated: bool | None = False
    tile: tuple[int, ...] | None = None
    input: int | str = "any"
    hub: str | None = None
    repo_type: str = "model"
    revision: str | None = None
    file: str | None = None
    architecture: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    parameters: float | None = None
    layout: str = "plain"
    ignore: tuple[str, ...] = ()
    package: str | None = None
    install: str | None = None
    forward: dict[str, Any] = field(default_factory=dict)
    pooling: str = "model"
    prefix_tokens: int = 1
    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    precision: str = "float32"
    stain_normalisation: str = "none"
    seed: int | None = None
    plugin: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fits(self, mpp: float) -> bool:
        """Whether the encoder was made for this resolution."""
        return self.mpp[0] <= mpp <= self.mpp[1]

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to fetch or to be given."""
        if self.builder == "plugin":
            return self.hub is not None or self.file is not None
        return self.builder != "descriptor" and self.seed is None


def make(name: str, entry: Mapping[str, Any], *, plugin: str | None = None) -> EncoderRecipe:
    """A checked recipe of its fields, as they stand in `registry.yaml`.

    Raises
    ------
    HistillError
        When a field is unknown, missing or makes no sense; all problems in one message.
    """
    known = {item.name for item in fields(EncoderRecipe)} - {"name", "plugin"}
    needed = ("builder", "dim", "mpp", "licence", "source")
    problems = [f"unknown field '{key}'" for key in entry if key not in known]
    problems += [f"field '{key}' is missing" for key in needed if key not in entry]
    if not problems:
        tuples = {key: tuple(entry[key]) for key in _TUPLES if entry.get(key) is not None}
        recipe = EncoderRecipe(name=name, plugin=plugin, **{**entry, **tuples})
        problems = _problems(recipe)
    if problems:
        raise HistillError(
            f"recipe of encoder '{name}': {'; '.join(problems)}",
            mend=f"correct it in {plugin or REGISTRY.name}",
        )
    return recipe


def _problems(recipe: EncoderRecipe) -> list[str]:
    """What makes no sense in a recipe."""
    choices = {
        "builder": BUILDERS,
        "pooling": POOLINGS,
        "precision": PRECISIONS,
        "interpolation": INTERPOLATIONS,
        "stain_normalisation": STAINS,
        "repo_type": ("model", "dataset"),
    }
    problems = [
        f"{key} '{getattr(recipe, key)}' is none of {', '.join(allowed)}"
        for key, allowed in choices.items()
        if getattr(recipe, key) not in allowed
    ]
    if not (isinstance(recipe.dim, int) and recipe.dim > 0):
        problems.append("dim is no positive whole number")
    if len(recipe.mpp) != 2 or not 0 < recipe.mpp[0] <= recipe.mpp[1]:
        problems.append("mpp is no range [low, high] in µm per pixel")
    if recipe.builder in ("descriptor", "plugin"):
        return problems
    problems += [f"{key} is not three numbers" for key in ("mean", "std") if len(getattr(recipe, key) or ()) != 3]
    side = recipe.crop or recipe.resize
    if side is None or recipe.input != side:
        problems.append(f"input is {recipe.input}, and resize and crop give {side}")
    if recipe.crop and recipe.crop > (recipe.resize or recipe.crop):
        problems.append(f"crop {recipe.crop} is larger than resize {recipe.resize}")
    if not recipe.architecture:
        problems.append("architecture is missing")
    if recipe.builder == "timm" and (recipe.hub is None) == (recipe.seed is None):
        problems.append("builder 'timm' needs hub, or seed for random weights")
    if recipe.builder == "package" and not (recipe.package and recipe.install):
        problems.append("builder 'package' needs package and install")
    return problems


def missing_package(recipe: EncoderRecipe) -> tuple[str, str] | None:
    """The optional package that an encoder needs and that is not installed, and how to get it."""
    packages = {
        "transformers": ("transformers", "pip install 'histill[transformers]'"),
        "package": ((recipe.package or "").split(".")[0], recipe.install or ""),
    }
    needed = packages.get(recipe.builder)
    return needed if needed and find_spec(needed[0]) is None else None


@cache
def builtin() -> dict[str, EncoderRecipe]:
    """The recipes of histill by name."""
    import yaml

    entries = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {name: make(name, entry) for name, entry in entries.items()}


def registry() -> dict[str, EncoderRecipe]:
    """All recipes by name: those of histill, then those of plug-ins. Broken plug-ins are left out."""
    from histill.encoders import plugins

    return {**builtin(), **plugins.load().recipes}


def get(name: str) -> EncoderRecipe:
    """The recipe of an encoder; an unknown name is an error that lists the known ones.

    Plug-ins are looked at only for a name that is none of histill's: one that is broken stops nobody else.
    """
    if name in builtin():
        return builtin()[name]
    from histill.encoders import plugins

    found = plugins.load()
    if name in found.recipes:
        return found.recipes[name]
    known = [*builtin(), *found.recipes]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    broken = "".join(f"; {problem}" for problem in found.problems)
    raise HistillError(f"no encoder '{name}'{hint}{broken}", mend=f"choose one of: {', '.join(known)}")


def chosen(config: dict[str, Any]) -> dict[str, str | None]:
    """Encoders of a config, the one that methods use first, and the local weights of each or None."""
    options = config["features"]
    return {options["encoder"]: options["weights"], **options["also"]}


def stain_method(name: str, asked: str) -> str:
    """The stain normalisation of an encoder's slides: `none`, `macenko` or `reinhard`.

    Parameters
    ----------
    asked
        Config `features.stain_normalisation`; `recipe` is what the encoder's recipe says.
    """
    return get(name).stain_normalisation if asked == "recipe" else asked


def check(
    name: str,
    *,
    tile_size: int,
    mpps: dict[str, float],
    allow_off_recipe: bool,
    stain_normalisation: str = "recipe",
) -> list[str]:
    """What would be off-recipe about encoding tiles of `tile_size` px at these resolutions, one line each.

    Parameters
    ----------
    mpps
        Magnification to µm per pixel.
    stain_normalisation
        Config `features.stain_normalisation`.

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
    if recipe.tile is not None and tile_size not in recipe.tile:
        sizes = " or ".join(str(side) for side in recipe.tile)
        off.append(f"encoder '{name}' is made for tiles of {sizes} px; tiles.size is {tile_size}")
    method = stain_method(name, stain_normalisation)
    if method != recipe.stain_normalisation:
        off.append(
            f"encoder '{name}' is made for stain normalisation '{recipe.stain_normalisation}'; "
            f"features.stain_normalisation is '{method}'"
        )
    if off and not allow_off_recipe:
        mend = "choose another encoder, or set features.allow_off_recipe: true (it is then said in the report)"
        raise HistillError("; ".join(off), mend=mend)
    return off
