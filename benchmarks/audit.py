"""What the leakage audit costs, and how far copies lie from patients who are merely alike.

    python benchmarks/audit.py [--items 10000] [--results FOLDER ...]

The first table: processor seconds of comparing that many pictures and expression profiles drawn at random, all with all
(`histill.cohort.same_patient`). The second, for finished runs: the time to decode an overview, the highest correlation
between overviews of two slides, the lowest between an overview and itself saved again (JPEG quality 50), and the
highest Spearman correlation between expression profiles of two patients.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histill.cohort import same_patient
from histill.cohort.audit import SAME_PICTURE, SAME_PROFILE
from histill.transcriptome import stage as transcriptome

PICTURE_VALUES = 4096
GENES = 2000


def cost(items: int) -> list[str]:
    """Lines of Markdown: processor seconds of all comparisons."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((items, PICTURE_VALUES), dtype=np.float32)
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    profiles = rng.standard_normal((items, GENES), dtype=np.float32)
    lines = ["| compared, all with all | processor s |", "|---|---|"]
    start = time.process_time()
    assert not list(same_patient.similar(pictures, SAME_PICTURE))
    lines.append(f"| {items:,} pictures | {time.process_time() - start:.1f} |")
    start = time.process_time()
    assert not list(same_patient.similar(same_patient.profile_ranks(profiles), SAME_PROFILE))
    lines.append(f"| {items:,} profiles of {GENES:,} genes, ranks with them | {time.process_time() - start:.1f} |")
    return lines


def highest(rows: np.ndarray, owners: list[str]) -> float:
    """The highest product of rows [N, D] of length 1 of two owners."""
    products = rows @ rows.T
    owner = np.array(owners)
    return float(products[owner[:, None] != owner[None, :]].max())


def saved_again(path: Path) -> float:
    """Correlation of a picture with itself at JPEG quality 50."""
    copy = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(copy, "JPEG", quality=50)
    return float(same_patient.picture_vector(path) @ same_patient.picture_vector(copy))


def distances(results: Path) -> str:
    """One row of Markdown of a finished run; a dash where it has no such thing."""
    paths = sorted(results.glob("slides/*/overview.jpg"))
    patients = pd.read_parquet(results / "cohort" / "patients.parquet")
    cells = ["–"] * 3
    if len(paths) > 1:
        start = time.process_time()
        vectors = np.stack([same_patient.picture_vector(path) for path in paths])
        spent = 1000 * (time.process_time() - start) / len(paths)
        cells = [f"{spent:.0f}", f"{highest(vectors, [path.parent.name for path in paths]):.2f}"]
        cells.append(f"{min(saved_again(path) for path in paths):.2f}")
    expression, profile = results / transcriptome.OUTPUT, "–"
    if expression.exists():
        names, matrix, _ = transcriptome.by_patient(expression)
        ranks = same_patient.profile_ranks(matrix.astype(np.float32))
        profile = "–" if ranks is None else f"{highest(ranks, names):.2f}"
    return f"| {results.name} | {len(patients)} | {' | '.join(cells)} | {profile} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--results", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    lines = cost(given.items)
    if given.results:
        lines += ["", "| run | patients | ms a picture | between slides | saved again | between profiles |"]
        lines += ["|---|---|---|---|---|---|", *map(distances, given.results)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
