"""Time and memory of the disentangled networks: a teacher's step of both presets, and a student's prediction.

    python benchmarks/disentangled.py [--steps 5] [--tiles 2500] [--store-tiles 10000]

A step is forward, loss and backward of one patient with so many tiles of 1,024 features at each magnification, 59 and
361 genes and 4 survival intervals, then AdamW. Each preset runs in a process of its own; the steps of the two take
turns, so that the ratio is of one machine at one time. The prediction reads a store of 10,000 + 2,500 tiles from disk,
scales and predicts it, as `histill predict-stage` does for a patient.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

FEATURES, GENES, SETS, BINS = 1024, {"tumor": 59, "microenvironment": 361}, 11, 4
PRESETS = ("default", "published")


def steps(preset: str, tiles: int, turn: Connection) -> None:
    """Make a step whenever asked, and answer its wall time, its processor time and the largest memory so far (GB)."""
    import torch

    from histill.cohort.tasks import Task
    from histill.config import complete
    from histill.data.fold import Labels
    from histill.methods.checkpoint import build_network
    from histill.methods.disentangled.training import arguments, teacher_module

    torch.manual_seed(0)
    config = complete({"cohort": {}, "methods": {"disentangled": {"preset": preset}}})
    labels = Labels(Task("os", "survival", ("time", "event"), BINS), edges=np.arange(1.0, BINS))
    network = build_network(
        "teacher", arguments("teacher", config, labels, dict.fromkeys(("10x", "20x"), FEATURES), Genes())
    )
    module = teacher_module(network, labels, config, {"learning_rate": 1e-4, "weight_decay": 0.01})
    module.log = lambda *_, **__: None
    module._loss_scale = lambda: 1.0  # what the trainer's precision says
    optimizer = torch.optim.AdamW(module.parameters())
    batch = patient(tiles)
    while turn.recv():
        wall, processor = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        turn.send((time.perf_counter() - wall, time.process_time() - processor, memory))


class Genes:
    """What a network asks of a fitted expression: genes and sets by subspace."""

    def __init__(self):
        self.genes_ = {k: [f"G{index}" for index in range(count)] for k, count in GENES.items()}
        self.members_ = {
            k: {f"set {first}": list(range(first, count, SETS)) for first in range(SETS)} for k, count in GENES.items()
        }


def patient(tiles: int) -> dict:
    """A batch of one patient with so many tiles at both magnifications."""
    import torch

    edge = int(np.ceil(np.sqrt(tiles)))
    place = torch.stack([torch.zeros(tiles), torch.arange(tiles) % edge, torch.arange(tiles) // edge], dim=1).long()
    genes = {f"genes:{k}": torch.randn(1, count) for k, count in GENES.items()}
    return {
        "tokens": {level: torch.randn(1, tiles, FEATURES) for level in ("10x", "20x")},
        "mask": {level: torch.ones(1, tiles, dtype=torch.bool) for level in ("10x", "20x")},
        "cells": dict.fromkeys(("10x", "20x"), place[None]),
        "parents": torch.arange(tiles)[None] // 4,
        "weight": torch.ones(1),
        "targets": {"label": torch.tensor([1]), "event": torch.tensor([1]), **genes},
    }


def compare(tiles: int, count: int) -> None:
    """Let the presets take turns and print what a step of each takes."""
    context = multiprocessing.get_context("spawn")
    ends, workers = {}, []
    for preset in PRESETS:
        ends[preset], other = context.Pipe()
        workers.append(context.Process(target=steps, args=(preset, tiles, other)))
        workers[-1].start()
    found: dict[str, list[tuple[float, float, float]]] = {preset: [] for preset in PRESETS}
    for turn in range(count + 1):
        for preset, end in ends.items():
            end.send(True)
            figures = end.recv()
            if turn:  # the first step allocates and compiles
                found[preset].append(figures)
    for end in ends.values():
        end.send(False)
    for worker in workers:
        worker.join()
    print(f"| teacher's step, {tiles} + {tiles} tiles | wall | processor | peak memory |\n|---|---|---|---|")
    median = {
        preset: [statistics.median(column) for column in zip(*rows, strict=True)] for preset, rows in found.items()
    }
    for preset, (wall, processor, memory) in median.items():
        print(f"| {preset} | {wall:.2f} s | {processor:.2f} s | {memory:.2f} GB |")
    ratios = [b[0] / a[0] for a, b in zip(found["default"], found["published"], strict=True)]
    print(f"published / default, turn by turn: {', '.join(f'{ratio:.1f}' for ratio in ratios)}")


def predict(tiles: int, folder: Path) -> None:
    """Read a store, scale it and predict, a few times; print the times and what of them was reading."""
    import torch

    from histill.data.bags import BagReader, Instances
    from histill.data.module import BagDataset, collate
    from histill.data.scaling import WinsorizedScaler
    from histill.features.store import Group, write_store
    from histill.methods.disentangled.model import Student
    from histill.subspaces import SUBSPACES

    draw, groups, edge = np.random.default_rng(0), {}, int(np.ceil(np.sqrt(tiles // 4)))
    for level, count, step in (("10x", tiles // 4, 448), ("20x", tiles, 224)):
        place = np.arange(count)
        own = edge * 448 // step
        spatial = step * np.column_stack([place % own, place // own]).astype(np.int64)
        obs = {"tile": place.astype(np.int32), "parent": np.full(count, -1, np.int32), "valid": np.ones(count, bool)}
        groups[level] = Group(draw.normal(size=(count, FEATURES)).astype(np.float16), spatial, obs)
    write_store(folder / "S1.zarr", groups, {})
    scalers = {
        level: WinsorizedScaler(clip=10.0).fit(group.x[:512].astype(np.float32)) for level, group in groups.items()
    }
    student = Student(dict.fromkeys(groups, FEATURES), BINS, list(SUBSPACES), dim=128, dropout=0.25, context=4).eval()
    print(f"| student, {tiles} + {tiles // 4} tiles from a store | reading and scaling | network | in all |")
    print("|---|---|---|---|")
    for turn in ("first", "second", "third"):
        bags = BagReader(folder, {"P1": ["S1"]})  # a new one: nothing is in memory
        start = time.perf_counter()
        batch = collate([BagDataset(Instances.of(bags, ["P1"], "bag"), scalers, {})[0]])
        read = time.perf_counter()
        with torch.inference_mode():
            student(batch)
        done = time.perf_counter()
        print(f"| {turn} | {read - start:.2f} s | {done - read:.2f} s | {done - start:.2f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=2500)
    parser.add_argument("--store-tiles", type=int, default=10_000)
    given = parser.parse_args()
    compare(given.tiles, given.steps)
    with tempfile.TemporaryDirectory() as folder:
        predict(given.store_tiles, Path(folder))


if __name__ == "__main__":
    main()
