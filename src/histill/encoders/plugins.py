"""Encoders of other packages, by Python entry points of the group `histill.encoders`.

The entry point names an object (a module will do) with

- `recipes`: mapping of encoder name to the fields of a recipe, as in `registry.yaml`;
- `build(recipe, *, weights, device)`: the encoder of a recipe whose builder is `plugin`. `weights` is a
  `histill.encoders.weights.WeightFiles` or None; `device` is a torch device name or `auto`.

Recipes with one of histill's own builders need no `build`. The object is imported when encoders are looked up, so it
must import its heavy libraries inside `build`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from histill.encoders import recipes
from histill.errors import HistillError

GROUP = "histill.encoders"


@dataclass
class Plugins:
    """What the installed plug-ins offer.

    Attributes
    ----------
    recipes
        Encoder name -> recipe.
    builders
        Encoder name -> object with `build`.
    problems
        One line for each plug-in that is broken, naming its distribution.
    """

    recipes: dict[str, recipes.EncoderRecipe] = field(default_factory=dict)
    builders: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@cache
def load() -> Plugins:
    """Look every plug-in up, once a process."""
    found = Plugins()
    for point in entry_points(group=GROUP):
        try:
            _add(point, found)
        except HistillError as error:
            found.problems.append(f"plug-in {_distribution(point)} is broken: {error.message}")
        except Exception as error:  # whatever its code raises, it is that plug-in that is broken
            found.problems.append(f"plug-in {_distribution(point)} is broken: {type(error).__name__}: {error}")
    return found


def _add(point: EntryPoint, found: Plugins) -> None:
    """Add all recipes of a plug-in, or none."""
    plugin = point.load()
    offered = getattr(plugin, "recipes", None)
    if not isinstance(offered, dict) or not offered:
        raise HistillError(f"{point.value} has no mapping 'recipes' of encoder names to fields")
    made = {}
    for name, entry in offered.items():
        if name in recipes.builtin() or name in found.recipes:
            raise HistillError(f"encoder '{name}' exists already")
        made[name] = recipes.make(name, entry, plugin=_distribution(point))
        if made[name].builder == "plugin" and not callable(getattr(plugin, "build", None)):
            raise HistillError(f"{point.value} has no function 'build' for encoder '{name}'")
    found.recipes.update(made)
    found.builders.update(dict.fromkeys(made, plugin))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def build(recipe: recipes.EncoderRecipe, *, weights: Any, device: str) -> Any:
    """The encoder of a plug-in's recipe; what its code raises is an error that names the plug-in."""
    plugin = load().builders.get(recipe.name)
    if plugin is None:
        raise HistillError(f"encoder '{recipe.name}' is of no installed plug-in", mend="install its package again")
    try:
        encoder = plugin.build(recipe, weights=weights, device=device)
    except HistillError:
        raise
    except Exception as error:
        raise HistillError(
            f"plug-in {recipe.plugin} cannot build encoder '{recipe.name}': {type(error).__name__}: {error}",
            mend="tell its authors, or choose another features.encoder",
        ) from error
    if getattr(encoder, "dim", None) != recipe.dim or not (hasattr(encoder, "names") and hasattr(encoder, "encode")):
        raise HistillError(
            f"plug-in {recipe.plugin} built no encoder (dim {recipe.dim}, names, encode) for '{recipe.name}'",
            mend="tell its authors, or choose another features.encoder",
        )
    return encoder
