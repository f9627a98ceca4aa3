"""Time and memory of training teacher and student on large bags, which are streamed from their stores.

    python benchmarks/training.py [--patients 500] [--tiles 10000] [--dim 1024] [--epochs 1] [--distinct 8]
        [--set training.model.batch_size=8 ...] [--out FOLDER]

A cohort as `histill demo planted` makes it, but with stores of random features: `--tiles` at 20x a slide and a quarter
of them at 10x, float16. `--distinct` of them are written and the others are hard links to these: 8 of the default size
take 0.2 GB of disk, where 500 would take 13 GB. One fold of one seed is trained, teacher and then student, and
predicted, each in a process of its own. Printed are the seconds a step (median, shortest and longest), those of the
whole, and the largest resident memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histill import config as configuration
from histill.cohort import sheets as sampling
from histill.cohort import stage as cohort_stage
from histill.demo.planted import make
from histill.features.store import Group, write_store
from histill.methods import predict, train
from histill.methods.progress import TrainingProgress
from histill.transcriptome import stage as transcriptome_stage

TASK, RUN = "survival", (0, 0)
STEP = 448  # level-0 pixels from 10x tile to 10x tile


class Stores:
    """Writes stores of random features in the place of the planted ones: a few, and hard links to them."""

    def __init__(self, tiles: int, dim: int, distinct: int):
        self.tiles, self.dim, self.distinct = tiles, dim, distinct
        self.written: list[tuple[Path, dict[str, Any]]] = []
        self.count = 0

    def __call__(self, path: Path, levels: Mapping[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        if len(self.written) < self.distinct:
            record = write_store(path, self._groups(len(self.written)), recipe)
            self.written.append((path, record))
            return record
        source, record = self.written[self.count % self.distinct]
        shutil.copytree(source, path, copy_function=_link)
        return record

    def _groups(self, seed: int) -> dict[str, Group]:
        draw, count = np.random.default_rng(seed), self.tiles // 4
        side = int(np.ceil(np.sqrt(count)))
        coarse = STEP * np.column_stack(np.divmod(np.arange(count), side))
        fine = (coarse[:, None] + STEP // 2 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])).reshape(-1, 2)
        parents = {"10x": np.full(count, -1, np.int32), "20x": np.repeat(np.arange(count, dtype=np.int32), 4)}
        return {
            level: Group(
                draw.standard_normal((len(origins), self.dim), dtype=np.float32).astype(np.float16),
                origins.astype(np.int64),
                {"parent": parents[level], "valid": np.ones(len(origins), bool)},
            )
            for level, origins in (("10x", coarse), ("20x", fine))
        }


def _link(source: str, target: str) -> None:
    # The sheet names a file of each store; two slides of one file would be refused.
    (shutil.copy2 if source.endswith(".json") else os.link)(source, target)


class Timed(TrainingProgress):
    """Notes when each step ended."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.ends: list[tuple[float, float]] = []  # epochs done, seconds

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        steps = [
            later - earlier
            for (before, earlier), (done, later) in zip(self.ends, self.ends[1:], strict=False)
            if int(before) == int(np.nextafter(done, 0))  # validation lies between two epochs
        ]
        if steps:
            print(f"  {np.median(steps):.2f} s a step ({min(steps):.2f}-{max(steps):.2f})")

    def at(self, told: tuple[float, float | None]) -> None:
        self.ends.append((told[0], time.monotonic()))
        super().at(told)


def prepare(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Write the cohort, run the stages before training, and return the config."""
    make(folder, Stores(given.tiles, given.dim, given.distinct), patients=given.patients, tiles=12, dim=64)
    config = configuration.read(folder / "config.yaml")
    config["methods"]["run"] = ["disentangled"]
    for key, value in [("training.model.epochs", given.epochs), ("training.model.patience", given.epochs), *given.set]:
        *path, last = key.split(".")
        place = config
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    config = configuration.complete(config)
    sheets = sampling.load(config)
    transcriptome_stage.run(path=sheets.expression, config=config, results=config["results"])
    cohort_stage.run(sheets=sheets, config=config, results=config["results"])
    return config


def work(config: dict[str, Any], stage: str) -> None:
    """Train or predict one run, and say what it took."""
    start = time.monotonic()
    print(f"{stage}:", flush=True)
    if stage == "predict":
        predict.runs = lambda *_: [RUN]
        predict.run(task=TASK, config=config, results=config["results"])
    else:
        train.TrainingProgress = Timed
        train.run(task=TASK, method="disentangled", stage=stage, config=config, results=config["results"], only=RUN)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {time.monotonic() - start:.0f} s in all, largest resident memory {memory:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--tiles", type=int, default=10_000, help="20x tiles a slide")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--distinct", type=int, default=8, help="stores that are not links to others")
    parser.add_argument("--set", type=_setting, nargs="*", default=[], help="config keys, as key=value")
    parser.add_argument("--out", type=Path, help="where the cohort is made; a temporary folder if not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        config = prepare(Path(folder), given)
        context = multiprocessing.get_context("spawn")  # memory of one stage is not another's
        for stage in ("teacher", "student", "predict"):
            process = context.Process(target=work, args=(config, stage))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


def _setting(text: str) -> tuple[str, Any]:
    key, value = text.split("=", 1)
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    main()
