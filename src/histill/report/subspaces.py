"""What the distilled student made of the tiles: tokens kept, tiles of each subspace, and maps of some slides."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.methods.maps import TILES, TOKENS
from histill.methods.predict import MAPPED, PREDICTIONS
from histill.methods.train import run_folder
from histill.provenance import read_json
from histill.report.subspace_map import COLOURS, Layer, draw_map, drawable

MAPS = 4
NAMES = {"tumor": "tumour"}


@dataclass(frozen=True)
class _Scored:
    """A test patient: the score the maps are chosen by, its rank among the fold's, and what the caption says of it."""

    rank: float
    patient: str
    folder: Path
    said: str


def subspace_facts(task: str, config: dict[str, Any], results: Path) -> dict[str, Any] | None:
    """What the page says of the subspaces of a task; None where no student left maps.

    Returns
    -------
    `names`, of the subspaces, with their colour [(name, RGB)]; `ordered`, whether they mean the same on every slide;
    `rows`, one a magnification: `magnification`, `patients`, `tiles` and `kept` (a list, one a subspace) with `median`,
    `low`, `high`, and `shares`, mean over patients of the share of tiles; `score`, what the maps are ordered by;
    `maps`, up to four: `slide`, `uri`, `width`, `height`, `alt`, `caption`.
    """
    folders = _folders(task, config, results)
    if not folders:
        return None
    kept = [row for folder in folders for row in _rows(folder / TOKENS)]
    subspaces = [name.removeprefix("kept:") for name in kept[0] if name.startswith("kept:")] if kept else []
    if not subspaces:
        return None
    shares = _shares(folders, subspaces)
    rows = []
    for level in dict.fromkeys(row["magnification"] for row in kept):
        own = [row for row in kept if row["magnification"] == level and row["tiles"]]
        if own:
            mean = np.mean([shares[row["patient_id"], level] for row in own], axis=0)
            rows.append(
                {
                    "magnification": level,
                    "patients": len(own),
                    "tiles": _spread([row["tiles"] for row in own]),
                    "kept": [_spread([row[f"kept:{k}"] for row in own]) for k in subspaces],
                    "shares": mean.tolist(),
                }
            )
    score, scored = _scored(folders, config["tasks"][task]["type"])
    chosen = _evenly(sorted(scored, key=lambda one: (one.rank, one.patient)))
    maps = [_map(one, subspaces, results) for one in chosen]
    return {
        "names": [(NAMES.get(k, k), colour) for k, colour in zip(subspaces, COLOURS, strict=False)],
        "ordered": config["methods"]["disentangled"]["model"]["network"] != "deformable",
        "rows": rows,
        "score": score,
        "maps": [found for found in maps if found],
    }


def _folders(task: str, config: dict[str, Any], results: Path) -> list[Path]:
    """Folders of the mapped runs, one a fold; none where a fold has no map."""
    path = results / "cohort" / "folds.json"
    if MAPPED[0] not in config["methods"]["run"] or not path.exists():
        return []
    folders = [run_folder(results, task, *MAPPED, fold, config["seeds"][0]) for fold in range(read_json(path)["n"])]
    return folders if all((folder / TILES).exists() and (folder / TOKENS).exists() for folder in folders) else []


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def _spread(values: list[int]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _shares(folders: list[Path], subspaces: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """(patient, magnification) -> mean share of its tiles in each subspace [K]; one row group is held at a time."""
    import pyarrow.parquet as pq

    columns = ["patient_id", "magnification", *(f"p:{k}" for k in subspaces)]
    found = {}
    for folder in folders:
        with pq.ParquetFile(folder / TILES) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                patient, levels = table["patient_id"][0].as_py(), np.array(table["magnification"].to_pylist())
                values = np.column_stack([table[name].to_numpy() for name in columns[2:]]).astype(np.float64)
                for level in np.unique(levels):
                    found[patient, str(level)] = values[levels == level].mean(axis=0)
    return found


def _scored(folders: list[Path], kind: str) -> tuple[str, list[_Scored]]:
    """What test patients are ordered by, and the patients.

    Ranks are those in the fold, from 0 (lowest) to 1, since models of folds have scales of their own.
    """
    import pyarrow.parquet as pq

    found = []
    for folder in folders:
        table = pq.read_table(folder / PREDICTIONS)
        rows = [row for row in table.to_pylist() if row["split"] == "test"]
        column = "risk" if kind == "survival" else [name for name in table.column_names if name.startswith("p:")][-1]
        score = "risk" if kind == "survival" else f"probability of {column.removeprefix('p:')}"
        rows.sort(key=lambda row: (row[column], row["patient_id"]))
        for place, row in enumerate(rows):
            order = f"{place + 1} of {len(rows)} in its fold, from low to high"
            value = order if kind == "survival" else f"{row[column]:.2f}"
            rank = place / max(1, len(rows) - 1)
            found.append(_Scored(rank, row["patient_id"], folder, f"{score} {value}"))
    return score, found


def _evenly(scored: list[_Scored]) -> list[_Scored]:
    places = np.unique(np.linspace(0, len(scored) - 1, MAPS).round().astype(int)) if scored else []
    return [scored[place] for place in places]


def _map(scored: _Scored, subspaces: list[str], results: Path) -> dict[str, Any] | None:
    """The map of a patient's slide with the most tiles; None where it is not known where they lie."""
    import pyarrow.parquet as pq

    table = pq.read_table(scored.folder / TILES, filters=[("patient_id", "==", scored.patient)])
    if not table.num_rows:
        return None
    slides, counts = np.unique(table["slide_id"].to_pylist(), return_counts=True)
    slide = str(slides[counts.argmax()])
    here = np.array(table["slide_id"].to_pylist()) == slide
    levels = np.array(table["magnification"].to_pylist())
    columns = {name: table[name].to_numpy() for name in table.column_names if name[:2] in ("p:", "w:") or name in "xy"}
    layers = {}
    for level in np.unique(levels[here]):
        rows = here & (levels == level)
        layers[str(level)] = Layer(
            origins=np.column_stack([columns["x"][rows], columns["y"][rows]]),
            assignment=np.column_stack([columns[f"p:{k}"][rows] for k in subspaces]).astype(np.float64),
            weights=np.column_stack([columns[f"w:{k}"][rows] for k in subspaces]).astype(np.float64),
        )
    layers = {level: layer for level, layer in layers.items() if drawable(layer)}
    if not layers:
        return None
    picture = draw_map(results / "slides" / slide, list(layers.values()))
    names = [NAMES.get(k, k) for k in subspaces]
    said = "; ".join(
        f"{level}: {len(layer.origins)} tiles, "
        + ", ".join(f"{share:.0%} {name}" for name, share in zip(names, layer.assignment.mean(axis=0), strict=True))
        for level, layer in layers.items()
    )
    order = f" Left {', right '.join(layers)}." if len(layers) == 2 else ""
    return {
        **picture,
        "slide": slide,
        "alt": f"Tiles of slide {slide} coloured by subspace. {said}",
        "caption": f"{scored.said}.{order} {said}.",
    }
