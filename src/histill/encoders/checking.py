"""Whether an encoder can be used here: licence, gate, token, weights, packages. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from histill.encoders import hub, recipes, slide_recipes, weights
from histill.encoders.listing import gate
from histill.encoders.recipes import EncoderRecipe
from histill.errors import HistillError


@dataclass
class Finding:
    """What was found.

    Attributes
    ----------
    lines
        (what, finding).
    todo
        What stands between the user and the encoder, in the order of doing it; empty when it is ready.
    """

    lines: list[tuple[str, str]]
    todo: list[str]

    @property
    def ready(self) -> bool:
        return not self.todo

    @property
    def text(self) -> str:
        """For a terminal."""
        width = max(len(what) for what, _ in self.lines)
        lines = [f"{what.ljust(width)}  {found}" for what, found in self.lines]
        return "\n".join([*lines, *(f"to do: {step}" for step in self.todo)] if self.todo else [*lines, "ready"])


def check(name: str, *, given: str | Path | None = None) -> Finding:
    """Look at a tile encoder. The hub is asked about the gate unless it cannot be reached.

    Parameters
    ----------
    given
        File or folder of weights in place of the hub's.
    """
    recipe = recipes.get(name)
    low, high = recipe.mpp
    sizes = " or ".join(str(side) for side in recipe.tile) if recipe.tile else "any"
    found = Finding(
        [
            ("encoder", f"{name}: {recipe.dim} numbers a tile" + (f", from {recipe.plugin}" if recipe.plugin else "")),
            ("made for", f"tiles of {sizes} px at {low:g} to {high:g} µm per pixel"),
            ("licence", recipe.licence),
        ],
        [],
    )
    lacking = recipes.missing_package(recipe)
    if lacking:
        found.lines.append(("package", f"{lacking[0]} is not installed"))
        found.todo.append(lacking[1])
    if not recipe.has_weights:
        found.lines.append(("weights", "none needed"))
    elif given:
        _check_local(recipe, given, found)
    elif recipe.hub is None:
        found.lines.append(("weights", f"{recipe.file}, in no public repository"))
        found.todo.append("get the file from its authors and name it: features.weights, or --weights here")
    else:
        _check_hub(recipe, found)
    return found


def _check_local(recipe: EncoderRecipe, given: str | Path, found: Finding) -> None:
    try:
        folder, names = weights.local(recipe, given)
    except HistillError as error:
        found.lines.append(("weights", error.message))
        found.todo.append(error.mend or "")
        return
    size = sum((folder / name).stat().st_size for name in names)
    found.lines.append(("weights", f"{', '.join(names)} in {folder} ({size / 1e6:.0f} MB)"))


def _check_hub(recipe: EncoderRecipe, found: Finding) -> None:
    pinned = f"commit {recipe.revision}" if hub.is_pinned(recipe) else "unpinned: the newest when it is fetched"
    found.lines.append(("weights", f"{recipe.hub} ({weights.wanted(recipe)}), {pinned}"))
    there = hub.cached(recipe)
    gated, asked = _gate(recipe)
    token = hub.has_token()
    found.lines.append(("gate", f"{gate(gated)} ({asked})"))
    found.lines.append(("token", "found" if token else "none (HF_TOKEN, or 'hf auth login')"))
    if there:
        commit, folder, names = there
        size = sum((folder / name).stat().st_size for name in names)
        found.lines.append(("cache", f"commit {commit[:12]} is there, {size / 1e6:.0f} MB: works offline"))
        return
    found.lines.append(("cache", "not there"))
    if hub.is_offline():
        found.todo.append("unset HF_HUB_OFFLINE where there is a network")
    if gated is not False and not token:
        terms = "" if gated else "if it turns out to be gated: "
        found.todo.append(f"{terms}accept its terms on the hub and set HF_TOKEN, or log in with 'hf auth login'")
    found.todo.append(f"histill encoders prefetch {recipe.name}")


def _gate(recipe: EncoderRecipe) -> tuple[bool | None, str]:
    """Whether the repository is gated, and who says so."""
    if hub.is_offline():
        return recipe.gated, "by the registry; HF_HUB_OFFLINE is set"
    try:
        return hub.ask(recipe).gated, "asked the hub just now"
    except HistillError:
        return recipe.gated, "by the registry; the hub did not answer for it"


def check_slide(name: str) -> Finding:
    """Look at a slide encoder: what it reads, and whether its code can be had."""
    recipe = slide_recipes.registry()[name]
    found = Finding(
        [
            ("slide encoder", f"{name}: {recipe.dim} numbers a slide"),
            ("reads", f"{recipe.tile_encoder}, tiles of {recipe.tile} px at {recipe.mpp:g} µm per pixel"),
            ("licence", recipe.licence),
            ("gate", f"{gate(recipe.gated)} (by the registry)"),
            ("note", recipe.note),
        ],
        [],
    )
    if recipe.code == "repository":
        pinned = f"commit {recipe.revision}" if recipe.revision else "unpinned"
        found.lines.append(("code", f"in {recipe.hub} ({pinned}); it is run only where that is allowed"))
        lacking = [package for package in recipe.needs if find_spec(package) is None]
        if lacking:
            found.todo.append(f"pip install {' '.join(lacking)}")
    elif recipe.code == "package":
        found.lines.append(("code", f"package {recipe.package}"))
        if find_spec(recipe.package.split(".")[0]) is None:
            found.todo.append(recipe.install or "")
    else:
        found.lines.append(("code", "in no package"))
        found.todo.append("follow the instructions of its repository")
    return found
