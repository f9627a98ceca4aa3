"""How features were made, as a bundle says it and as features say it: what must agree, and what differs."""

from __future__ import annotations

import json
from typing import Any

# Of an encoder's recipe, what changes no vector.
_ABOUT = ("gated", "install", "licence", "off_recipe", "parameters", "source")


def portable(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a store (`uns['recipe']`) without what names a file of one machine or a slide.

    Local weights lose their file names and keep their digests. Of imported features the encoder's name and the numbers
    among their settings stay.
    """
    recipe = json.loads(json.dumps(recipe))
    if "builder" not in recipe:
        settings = {k: v for k, v in recipe.get("attributes", {}).items() if isinstance(v, int | float)}
        return {k: v for k, v in {"encoder": recipe.get("encoder"), "attributes": settings}.items() if v}
    weights = recipe.get("weights")
    if weights and weights["revision"] is None:
        named = enumerate(sorted(weights["sha256"].values()))
        recipe["weights"] = {"revision": None, "sha256": {f"weights {number}": sha256 for number, sha256 in named}}
    return recipe


def differences(own: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys in which two recipes make different vectors, with both values; weights are compared by their content."""
    first, second = (_decisive(portable(recipe)) for recipe in (own, other))
    return [
        f"{key}: {_short(first.get(key))} and {_short(second.get(key))}"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _decisive(recipe: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in recipe.items() if key not in _ABOUT}
    if found.get("weights"):
        # The pinned revision and the names of files may differ where the content is the same.
        found["weights"] = sorted(found["weights"]["sha256"].values())
        found.pop("revision", None)
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
