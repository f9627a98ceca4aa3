"""What the workers of features.py are given, and how they are run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import cv2
import features_encoders
import features_slide
import numpy as np
import shapely

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.features.fields import read_fields
from histill.provenance import write_json
from histill.slides import inspect, segment, tile

MPP = 0.25  # of the scan
MASK_PX = 16  # level-0 pixels a pixel of the mask that says to TIAToolbox which tiles to take
POOLS = [f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "OPENCV_FOR")]
WORKER = Path(__file__).with_name("features_peers.py")
Run = dict[str, Any]


def prepare(given: Namespace, scratch: Path) -> Run:
    """Write the scan and the tile table of its first fields; what the workers are told."""
    slide, results, folder = scratch / "scan.svs", scratch / "results", scratch / "results" / "slides" / "s"
    features_slide.write_slide(slide, tuple(given.size), mpp=MPP)
    options = {"encoder": given.encoder, "device": given.device, "batch_size": given.batch}
    config = {"results": str(results), "cohort": {}, "features": options, "on_error": "fail"}
    write_json(scratch / "config.json", config)
    config, sheet = complete(config), [Slide("s", "p", str(slide))]
    for stage in (inspect, segment, tile):
        stage.run(sheet, config=config, results=results)
    boxes = read_fields(folder / "tiles.parquet").boxes[: given.fields]
    _draw_tissue(folder / "tissue.geojson", boxes)
    tile.run(sheet, config=config, results=results)
    fields = read_fields(folder / "tiles.parquet")
    if not np.array_equal(fields.boxes, boxes):
        raise SystemExit(f"the tile table has {len(fields)} fields, not the {len(boxes)} that were drawn")
    corners = {key: np.column_stack([table["x"], table["y"]]) for key, table in fields.tables.items()}
    np.savez(scratch / "tiles.npz", fields=boxes, **corners)
    _draw_mask(scratch / "mask.png", boxes, given.size)
    features_encoders.install(scratch / "site")
    job = {"slide": slide, "scratch": scratch, "results": results, "config": scratch / "config.json"}
    job |= {"tiles": scratch / "tiles.npz", "mask": scratch / "mask.png"}
    return {key: str(path) for key, path in job.items()} | {"batch": given.batch, "fields": len(boxes)}


def _draw_tissue(path: Path, boxes: np.ndarray) -> None:
    """Tissue as if a person had drawn it: these fields and nothing else."""
    left, top, width, height = boxes.T
    parts = shapely.get_parts(shapely.union_all(shapely.box(left, top, left + width, top + height)))
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(part)} for part in parts]
    write_json(path, {"type": "FeatureCollection", "features": features})


def _draw_mask(path: Path, boxes: np.ndarray, size: tuple[int, int]) -> None:
    mask = np.zeros((size[1] // MASK_PX, size[0] // MASK_PX), np.uint8)
    for x, y, width, height in (boxes // MASK_PX).tolist():
        mask[y : y + height, x : x + width] = 255
    cv2.imwrite(str(path), mask)


def work(python: str, system: str, task: str, job: Run, threads: int) -> Run:
    """One run in a fresh process, on as many cores as threads: what the worker says, and time of the whole process."""
    shutil.rmtree(Path(job["results"]) / "features", ignore_errors=True)
    environment = os.environ | dict.fromkeys(POOLS, str(threads))
    if system == "histill":
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(job["scratch"]) / "site"), str(WORKER.parent)])
    cores = sorted(os.sched_getaffinity(0))[:threads]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [python, str(WORKER), system, task, json.dumps(job | {"threads": threads})],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{system}, {task} failed:\n{done.stderr[-3000:]}")
    cpu = sum(after[2:4]) - sum(before[2:4])
    return json.loads(done.stdout.splitlines()[-1]) | {"process_wall": wall, "process_cpu": cpu}
