"""Tissue and tiles beside LazySlide and TIAToolbox, each in its own Python: time, memory, tiles, agreement of masks.

    python benchmarks/slides.py --lazyslide PYTHON --tiatoolbox PYTHON [--repeats 5] [SLIDE ...]

Every run is a fresh process pinned to one core with one thread. The systems take turns within a repeat, after one round
that is not counted. Processor seconds are what stays comparable on a busy machine. Without SLIDE the synthetic 40x
pyramid of 40,000 × 30,000 px is used; with SLIDE, both. Prints a table in Markdown: medians, and the ratio of
processor seconds to histill run by run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "tests" / "slides"))
import sparse  # noqa: E402

MPP = 8.0
ONE_THREAD = {
    f"{name}_NUM_THREADS": "1"
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM", "OPENCV_FOR")
}


def run(python: str, system: str, slide: Path, mask: Path, mpp: float, core: int) -> dict:
    """One run: what the worker says, and wall and processor time of the whole process."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [python, str(FOLDER / "slides_worker.py"), system, str(slide), str(mask), repr(mpp)],
        capture_output=True,
        text=True,
        env=os.environ | ONE_THREAD,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{system} failed on {slide.name}:\n{done.stderr[-3000:]}")
    cpu = sum(after[2:4]) - sum(before[2:4])
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": wall, "cpu": cpu}


def compare(pythons: dict[str, str], slide: Path, repeats: int, core: int, scratch: Path) -> dict[str, list[dict]]:
    """Counted runs of every system, taken in turns."""
    runs: dict[str, list[dict]] = {system: [] for system in pythons}
    mpp = 0.25  # replaced by what histill, which runs first, finds
    for repeat in range(repeats + 1):
        for system, python in pythons.items():
            result = run(python, system, slide, scratch / f"{system}.npy", mpp, core)
            mpp = result.get("mpp", mpp)
            if repeat:
                runs[system].append(result)
    return runs


def iou(one: np.ndarray, two: np.ndarray) -> float:
    """Intersection over union; the second mask is brought to the size of the first."""
    two = cv2.resize(two.astype(np.uint8), one.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0


def work(result: dict) -> float:
    """Seconds without imports."""
    return sum(seconds for step, seconds in result["steps"].items() if step != "import")


def rows(name: str, runs: dict[str, list[dict]], masks: dict[str, np.ndarray], truth: np.ndarray | None) -> list[str]:
    """Lines of the table."""
    lines = []
    ours = runs["histill"]
    for system, results in runs.items():
        median = {key: statistics.median(result[key] for result in results) for key in ("wall", "cpu", "memory_mb")}
        ratio = statistics.median(result["cpu"] / mine["cpu"] for result, mine in zip(results, ours, strict=True))
        steps = {step: statistics.median(result["steps"][step] for result in results) for step in results[0]["steps"]}
        detail = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items() if step != "import")
        tiles = " + ".join(f"{count:,}" for count in results[0]["tiles"].values())
        cells = [
            name,
            f"{system} {results[0]['version']}",
            f"{median['wall']:.1f}",
            f"{median['cpu']:.2f}",
            f"{ratio:.1f}",
            f"{steps['import']:.2f}",
            f"{statistics.median(map(work, results)):.2f} ({detail})",
            f"{median['memory_mb']:.0f}",
            tiles,
            f"{iou(masks['histill'], masks[system]):.3f}",
            "" if truth is None else f"{iou(truth, masks[system]):.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="*", type=Path, metavar="SLIDE")
    parser.add_argument("--lazyslide", metavar="PYTHON", help="the interpreter that has lazyslide")
    parser.add_argument("--tiatoolbox", metavar="PYTHON", help="the interpreter that has tiatoolbox")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(40_000, 30_000), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    pythons = {"histill": sys.executable}
    if options.lazyslide:
        pythons["lazyslide"] = options.lazyslide
    if options.tiatoolbox:
        pythons |= {f"tiatoolbox:{method}": options.tiatoolbox for method in ("otsu", "morphological")}
    columns = (
        "slide, system, wall s, CPU s, CPU ratio, import CPU s, work CPU s (steps), peak MB, tiles, IoU with histill, "
        "IoU with truth"
    )
    print("| " + " | ".join(columns.split(", ")) + " |")
    print("|---" * len(columns.split(", ")) + "|")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        synthetic = sparse.write_sparse(scratch / "synthetic.svs", tuple(options.size))
        truth = synthetic.truth(*(round(side * 0.25 / MPP) for side in reversed(options.size)))
        for slide in [synthetic.path, *options.slides]:
            runs = compare(pythons, slide, options.repeats, options.core, scratch)
            masks = {system: np.load(scratch / f"{system}.npy") for system in pythons}
            known = truth if slide == synthetic.path else None
            print("\n".join(rows(slide.name, runs, masks, known)), flush=True)


if __name__ == "__main__":
    main()
