"""A slide's quality in one summary: shares of tissue by flag, focus, stain, and a traffic light with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from histill.magnifications import MAGNIFICATIONS
from histill.slides.ink import COLOURS
from histill.slides.quality import FLAGS
from histill.slides.table import Columns

GREEN, AMBER, RED = "green", "amber", "red"
LIGHTS = (RED, AMBER, GREEN)  # worst first
MIN_TILES = 10  # kept 10x tiles, half a mm² at 224 px: fewer say little of a patient
RED_SHARE, AMBER_SHARE = 0.50, 0.10  # of the tissue that carries a flag
ARTEFACTS = ("pen", "blur", "fold", "black")  # blood and lumen belong to the tissue
SURE = ("pen", "blur", "black")  # keratin looks like a fold: folds alone turn no slide red
SOFT = 1.0  # median sharpness: half of a usual scanner's least, as after a Gaussian of 1.5 µm
RULE = (
    f"red: fewer than {MIN_TILES} tiles kept at 10x, or over {RED_SHARE:.0%} of the tissue with {', '.join(SURE)}; "
    f"amber: over {AMBER_SHARE:.0%} of it with {', '.join(ARTEFACTS)}, median sharpness below {SOFT:g}, sources of the "
    "resolution in conflict, unusual stain or none that can be told; else green"
)


def summarise(
    columns: Columns,
    *,
    tissue_mm2: float | None = None,
    sharpness: np.ndarray | None = None,
    stain: dict[str, Any] | None = None,
    conflicts: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of quality.json.

    Parameters
    ----------
    columns
        A tile table (`histill.slides.table`).
    tissue_mm2
        Area of the tissue.
    sharpness
        Of the 10x tiles (`histill.slides.detail.Detail.sharpness`), NaN where not judged.
    stain
        `histill.slides.stain.statistics`.
    conflicts
        Sources of the resolution that contradict each other (`mpp.conflicts` of slide.json).

    Returns
    -------
    `light` (green, amber, red), `reasons`, `rule`; `tissue_mm2`; by magnification `tiles`, `kept`, `flagged` (tiles a
    flag), `share` (of the tissue's area a flag, and `artefact` for any of pen, blur, fold and black) and `pen_colours`
    (tiles a colour); `focus` and `stain`.
    """
    levels = {name: _level(columns, columns["magnification"] == name) for name in MAGNIFICATIONS}
    focus = _focus(sharpness)
    red, amber = _reasons(columns, levels["10x"], focus, stain, conflicts)
    return {
        "light": RED if red else AMBER if amber else GREEN,
        "reasons": red + amber,
        "rule": RULE,
        "tissue_mm2": None if tissue_mm2 is None else round(float(tissue_mm2), 4),
        **levels,
        "focus": focus,
        "stain": stain,
    }


def _level(columns: Columns, rows: np.ndarray) -> dict[str, Any]:
    pens = columns["pen_colour"][rows]
    return {
        "tiles": int(rows.sum()),
        "kept": int(np.count_nonzero(columns["keep"][rows])),
        "flagged": {flag: int(np.count_nonzero(columns[flag][rows])) for flag in FLAGS},
        "share": {
            **{flag: _share(columns, rows, (flag,)) for flag in FLAGS},
            "artefact": _share(columns, rows, ARTEFACTS),
        },
        "pen_colours": {name: int(np.count_nonzero(pens == name)) for name in COLOURS},
    }


def _share(columns: Columns, rows: np.ndarray, flags: Sequence[str]) -> float:
    """Share of the tissue's area in tiles that carry any of the flags."""
    tissue = columns["tissue"][rows].astype(np.float64)
    if not tissue.sum():
        return 0.0
    flagged = np.any([columns[flag][rows].astype(bool) for flag in flags], axis=0)
    return round(float(tissue[flagged].sum() / tissue.sum()), 4)


def _focus(sharpness: np.ndarray | None) -> dict[str, Any]:
    judged = np.zeros(0) if sharpness is None else sharpness[np.isfinite(sharpness)]
    if not len(judged):
        return {"judged": 0, "median": None, "p10": None}
    low, middle = np.percentile(judged.astype(np.float64), [10, 50])
    return {"judged": len(judged), "median": round(float(middle), 3), "p10": round(float(low), 3)}


def _reasons(
    columns: Columns,
    level: dict[str, Any],
    focus: dict[str, Any],
    stain: dict[str, Any] | None,
    conflicts: Sequence[str],
) -> tuple[list[str], list[str]]:
    red, amber = [], []
    if level["kept"] < MIN_TILES:
        red.append(f"only {level['kept']} tiles kept at 10x")
    share = level["share"]
    rows = columns["magnification"] == "10x"
    most = ", ".join(f"{flag} {share[flag]:.0%}" for flag in ARTEFACTS if share[flag])
    if _share(columns, rows, SURE) > RED_SHARE:
        red.append(f"{share['artefact']:.0%} of the tissue is flagged ({most})")
    elif share["artefact"] > AMBER_SHARE:
        amber.append(f"{share['artefact']:.0%} of the tissue is flagged ({most})")
    if focus["median"] is not None and focus["median"] < SOFT:
        amber.append(f"the slide is soft: median sharpness {focus['median']:.2f}")
    if conflicts:
        amber.append("sources of its resolution are in conflict")
    if stain is not None:
        amber += [f"unusual stain: {text}" for text in stain["unusual"]]
        if stain["macenko"] is None:
            amber.append(f"haematoxylin and eosin cannot be told apart: {stain['reason']}")
    return red, amber
