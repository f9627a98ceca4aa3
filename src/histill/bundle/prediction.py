"""prediction.json: what a bundle says of one slide, how far that can be trusted, and how it was made."""

from __future__ import annotations

from typing import Any

import numpy as np

from histill import __version__
from histill.bundle.bundle import Bundle
from histill.slides.summary import GREEN

SCHEMA_VERSION = 1
_DIGITS = 6
_APART = 50  # percentiles between the members from which they are said to disagree


def describe(bundle: Bundle, said: dict[str, Any], apart: dict[str, Any]) -> dict[str, Any]:
    """The parts of prediction.json that follow from the prediction alone.

    Parameters
    ----------
    said
        `Bundle.predict` of the slide alone.
    apart
        `Reference.out_of_distribution` of the slide.

    Returns
    -------
    `schema`, `histill`, `task`, `prediction`, `out_of_distribution`, `bundle`.
    """
    survival = bundle.task.type == "survival"
    task = {"name": bundle.task.name, "type": bundle.task.type}
    task |= {"time": bundle.task.columns[0]} if survival else {"classes": bundle.classes}
    about = bundle.about
    return {
        "schema": SCHEMA_VERSION,
        "histill": __version__,
        "task": task,
        "prediction": (_survival if survival else _classes)(bundle, said),
        "out_of_distribution": _rounded(apart) | {"says": _apart(apart)},
        "bundle": {
            "digest": about["digest"],
            "histill": about["histill"],
            "method": about["method"],
            "stage": about["stage"],
            "members": len(bundle.members),
            "encoder": about["encoder"]["name"],
            "recipe": bundle.recipe,
        },
    }


def warnings(prediction: dict[str, Any], quality: dict[str, Any], notes: list[str]) -> list[dict[str, str]]:
    """What stands in the way of trusting a prediction, the worst first: `level` (stop, care), `head`, `text`."""
    found = []
    apart = prediction["out_of_distribution"]
    if apart["outside"]:
        found.append(
            {"level": "stop", "head": "Out of distribution: do not rely on this prediction.", "text": apart["says"]}
        )
    if quality["light"] != GREEN:
        level = "stop" if quality["light"] == "red" else "care"
        reasons = "; ".join(quality["reasons"])
        found.append({"level": level, "head": f"The slide's quality is {quality['light']}:", "text": f"{reasons}."})
    if text := _disagreement(prediction["prediction"]):
        found.append({"level": "care", "head": "The models disagree:", "text": text})
    found += [
        {"level": "care", "head": "Note:", "text": f"{note[:1].upper()}{note[1:].rstrip('.')}."} for note in notes
    ]
    return sorted(found, key=lambda one: one["level"] != "stop")


def _classes(bundle: Bundle, said: dict[str, Any]) -> dict[str, Any]:
    members = bundle.reference.calibrate(said["members"][:, 0])
    calibrated = said["calibrated"][0]
    rows = [
        {
            "class": name,
            "probability": _number(calibrated[place]),
            "low": _number(members[:, place].min()),
            "high": _number(members[:, place].max()),
            "raw": _number(said["p"][0, place]),
            "percentile": _number(said["percentile"][0, place]),
        }
        for place, name in enumerate(bundle.classes)
    ]
    votes = np.bincount(members.argmax(axis=1), minlength=len(bundle.classes))
    return {
        "type": "classification",
        "class": bundle.classes[int(calibrated.argmax())],
        "classes": rows,
        "votes": dict(zip(bundle.classes, votes.tolist(), strict=True)),
    }


def _survival(bundle: Bundle, said: dict[str, Any]) -> dict[str, Any]:
    members = bundle.reference.percentile(said["members"][:, 0])
    return {
        "type": "survival",
        "risk": _number(said["risk"][0]),
        "spread": _number(said["spread"][0]),
        "percentile": _number(said["percentile"][0]),
        "low": _number(members.min()),
        "high": _number(members.max()),
        "survival": [
            {"time": float(time), "probability": _number(calibrated), "raw": _number(raw)}
            for time, calibrated, raw in zip(said["times"], said["calibrated"][0], said["s"][0], strict=True)
        ],
    }


def _apart(apart: dict[str, Any]) -> str:
    nearer = "all" if apart["percentile"] >= 99.5 else f"{apart['percentile']:.0f} %"
    place = f"Its distance from the training slides is {apart['score']:.2f}, and the limit is {apart['threshold']:.2f}"
    compared = f"{nearer} of the held-out training patients are nearer"
    if not apart["outside"]:
        return f"{place}; {compared}."
    return f"{place}; {compared}. The models may never have seen such a scanner, stain, tissue or disease."


def _disagreement(said: dict[str, Any]) -> str | None:
    """In words, where the members do not say the same."""
    if said["type"] == "survival":
        low, high = said["low"], said["high"]
        between = f"single models put its risk above that of {low:.0f} to {high:.0f} % of the reference patients."
        return between if high - low >= _APART else None
    votes = {name: count for name, count in said["votes"].items() if count}
    if len(votes) == 1:
        return None
    return ", ".join(f"{name}: {count} of {sum(votes.values())}" for name, count in votes.items()) + "."


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, bool) else _number(value) for name, value in values.items()}


def _number(value: Any) -> float:
    return round(float(value), _DIGITS)
