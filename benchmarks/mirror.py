"""MIRROR: whether pre-training collapses, and what a step takes.

    python benchmarks/mirror.py --collapse [--seeds 3] [--epochs 30] [--workers 2] [--out folder]
    python benchmarks/mirror.py --cohort CONFIG [--out folder]
    python benchmarks/mirror.py --figure docs/mirror-collapse.png [--out folder]
    python benchmarks/mirror.py --steps [--count 5]

`--collapse` trains both presets on made-up pairs and watches held-out ones: 192 + 48 patients whose 49 tiles of 64
features and 200 genes share 8 latent factors, and have 4 each of their own. Settings are those under which the
published code was seen to collapse (specification §4.1): width 96, 300 prototypes, batches of 16, Adam at 3e-4.
Between the presets stands `published` with a stopped target alone. It stores every curve in `synthetic.csv`.

`--cohort` does it on a cohort: fold 0 and the first seed of a config whose results folder has cohort, features and
transcriptome (`snakemake --until cohort`), and is used for this only. `published` is made smaller, for a processor: see
`COHORT`. Curves, of the inner validation patients after each epoch, are stored in `cohort.csv`.

`--figure` draws token variance and information between slide and prototype from both files.

`--steps` times forward, loss, backward and AdamW of 16 bags of 2,048 tiles with 1,024 features each. Each preset runs
in a process of its own; their steps take turns, so that the ratio is of one machine at one time.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SIDE, FEATURES, GENES, SHARED, OWN = 7, 64, 200, 8, 4
TRAIN, HELD_OUT, BATCH = 192, 48, 16
PUBLISHED_MODEL = {"positions": "order", "mask_padding": False, "temperature": None, "normalise": "before"}
PUBLISHED_LOSS = {"target": "free", "clustering": "kl", "free_nats": 0.0}
Preset = tuple[dict[str, Any], dict[str, Any]]
PRESETS: dict[str, Preset] = {
    "published": (PUBLISHED_MODEL, PUBLISHED_LOSS),
    "published, target stopped": (PUBLISHED_MODEL, {**PUBLISHED_LOSS, "target": "stopped"}),
    "default": ({}, {}),
}
SMALL = {"landmarks": 16}  # of bags that have fewer tokens, as of slide vectors: exact attention all the same
SMALLER = {**SMALL, "dim": 256, "rna_heads": 8, "tokens": 9}
COHORT: dict[str, dict[str, Any]] = {  # `methods.mirror` of a config; 2e-5 is the published rate
    "default": {"model": SMALL, "pretrain": {"epochs": 100}},  # as long as published: it might yet collapse
    "published": {"preset": "published", "model": SMALLER, "pretrain": {"learning_rate": 3e-4}},
    "published, target stopped": {
        "preset": "published",
        "model": SMALLER,
        "pretrain": {"learning_rate": 3e-4, "target": "stopped"},
    },
    "published, 2e-5": {"preset": "published", "model": SMALLER},
}
LINES = {
    "published": {"color": "C3"},
    "published, 2e-5": {"color": "C7", "linestyle": "dashdot"},
    "published, target stopped": {"color": "C1", "linestyle": "dashed"},
    "default": {"color": "C0"},
}
Curves = dict[str, list[list[dict[str, float]]]]  # preset -> seeds -> points
SHOWN = (
    "token_variance",
    "variance_rna",
    "rank_slide",
    "rank_rna",
    "kl_slide",
    "kl_rna",
    "information_slide",
    "information_rna",
    "modality_gap",
    "recall1_slide_to_rna",
    "recall10_slide_to_rna",
)


def pairs(seed: int) -> dict[str, Any]:
    """All patients as one batch: the first are for training."""
    import torch

    made = torch.Generator().manual_seed(seed)
    count = TRAIN + HELD_OUT

    def mix(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=made)

    shared, slide, rna = mix(count, SHARED), mix(count, OWN), mix(count, OWN)
    factors = torch.cat([shared, slide], dim=1)
    strength = mix(count, SIDE**2, SHARED + OWN).exp()  # how much of each factor a tile shows
    tokens = (strength * factors[:, None]) @ (mix(SHARED + OWN, FEATURES) / (SHARED + OWN) ** 0.5)
    tokens = tokens + mix(count, SIDE**2, FEATURES)
    genes = torch.cat([shared, rna], dim=1) @ mix(SHARED + OWN, GENES) + 2 * mix(count, GENES)
    place = torch.arange(SIDE**2)
    cells = torch.stack([torch.zeros_like(place), place % SIDE, place // SIDE], dim=1)
    return batch(
        (tokens - tokens[:TRAIN].mean(dim=(0, 1))) / tokens[:TRAIN].std(dim=(0, 1)),
        cells.expand(count, -1, -1),
        (genes - genes[:TRAIN].mean(dim=0)) / genes[:TRAIN].std(dim=0),
    )


def batch(tokens, cells, genes) -> dict[str, Any]:
    import torch

    return {
        "tokens": {"20x": tokens},
        "cells": {"20x": cells},
        "mask": {"20x": torch.ones(tokens.shape[:2], dtype=torch.bool)},
        "targets": {"genes:genes": genes},
        "weight": torch.ones(len(tokens)),
    }


def some(value: Any, rows) -> Any:
    """Some patients of a batch."""
    return {name: some(part, rows) for name, part in value.items()} if isinstance(value, dict) else value[rows]


def train(name: str, seed: int, epochs: int, every: int) -> list[dict[str, float]]:
    """Held-out monitors of a preset's run before the first epoch and after every few."""
    import torch

    from histill.methods.mirror.losses import same_profile
    from histill.methods.mirror.model import MIRROR
    from histill.methods.mirror.module import PretrainModule
    from histill.methods.mirror.monitors import monitors

    torch.set_num_threads(1)
    model_options, loss_options = PRESETS[name]
    data = pairs(seed)
    held_out = some(data, slice(TRAIN, None))
    torch.manual_seed(seed)
    model = MIRROR(
        {"20x": FEATURES},
        GENES,
        dim=96,
        heads=8,
        landmarks=16,
        rna_heads=12,
        prototypes=300,
        tokens=SIDE**2 if model_options else None,  # the published network draws a fixed number, in random order
        **model_options,
    )
    module = PretrainModule(model, learning_rate=3e-4, weight_decay=0.0, schedule="constant", **loss_options)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-4)
    curve = []
    for epoch in range(epochs + 1):
        if epoch % every == 0:
            module.eval()
            with torch.no_grad():
                seen = module.see(held_out)
            figures = {name: float(value) for name, value in monitors(seen, same_profile(seen["genes"])).items()}
            curve.append({"epoch": epoch, **figures})
        if epoch == epochs:
            break
        module.train()
        for rows in torch.randperm(TRAIN).split(BATCH):
            optimizer.zero_grad()
            torch.stack(list(module.losses(module.see(some(data, rows))).values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            model.constrain()
    return curve


def collapse(seeds: int, epochs: int, workers: int, out: Path) -> None:
    every = max(1, epochs // 10)
    plan = [(name, seed, epochs, every) for name in PRESETS for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        curves = pool.starmap(train, plan, chunksize=1)
    found: Curves = {name: [] for name in PRESETS}
    for (name, *_), curve in zip(plan, curves, strict=True):
        found[name].append(curve)
    write(found, out / "synthetic.csv")
    table(found)


def cohort(path: Path, out: Path) -> None:
    """Pre-train as `COHORT` says, and gather the curves."""
    from histill import config as configs
    from histill.methods import train
    from histill.stages import PRETRAIN

    found: Curves = {}
    for name, options in COHORT.items():
        given = configs.read(path) | {"methods": {"run": ["mirror"], "mirror": options}}
        config = configs.complete(given)
        run = {"task": PRETRAIN, "method": "mirror", "stage": "pretrain"}
        results, (fold, seed) = Path(config["results"]), (0, config["seeds"][0])
        train.run(**run, config=config, results=results, only=(fold, seed))
        with (train.run_folder(results, *run.values(), fold, seed) / "curve.csv").open(encoding="utf-8") as file:
            rows = [{key.removeprefix("monitor_"): value for key, value in row.items()} for row in csv.DictReader(file)]
        found[name] = [[{key: float(value) for key, value in row.items() if value} for row in rows]]
        write(found, out / "cohort.csv")
    table(found)


def table(found: Curves) -> None:
    """Print the first and the last point."""
    last, seeds = next(iter(found.values()))[0][-1]["epoch"], len(next(iter(found.values())))
    print(f"| held out, first → epoch {last:.0f}, mean (range) of {seeds} seeds | {' | '.join(found)} |")
    print("|---" * (len(found) + 1) + "|")
    for name in SHOWN:
        cells = []
        for runs in found.values():
            first, end = ([run[at][name] for run in runs] for at in (0, -1))
            spread = f" ({min(end):.3g} to {max(end):.3g})" if seeds > 1 else ""
            cells.append(f"{statistics.mean(first):.3g} → {statistics.mean(end):.3g}{spread}")
        print(f"| {name} | {' | '.join(cells)} |")


def write(found: Curves, path: Path) -> None:
    """Store curves: a row a point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"preset": name, "seed": seed, **{key: point[key] for key in ("epoch", *SHOWN)}}
        for name, runs in found.items()
        for seed, run in enumerate(runs)
        for point in run
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> Curves:
    """Curves that `write` stored."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, seed = row.pop("preset"), row.pop("seed")
            point = {key: float(value) for key, value in row.items()}
            found.setdefault(name, {}).setdefault(seed, []).append(point)
    return {name: list(runs.values()) for name, runs in found.items()}


def draw(out: Path, path: Path) -> None:
    """Token variance and information over training; a thin line a seed, a thick one their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = {"synthetic pairs": read(out / "synthetic.csv"), "TCGA-LUAD": read(out / "cohort.csv")}
    shown = {"token_variance": "variance of slide tokens", "information_slide": "slide–prototype information (nats)"}
    figure, axes = pyplot.subplots(2, 2, figsize=(8, 5.6), layout="constrained", facecolor="white")
    for row, (title, found) in zip(axes, drawn.items(), strict=True):
        for axis, (key, label) in zip(row, shown.items(), strict=True):
            for name in (name for name in LINES if name in found):
                epochs = [point["epoch"] for point in found[name][0]]
                values = [[point[key] for point in run] for run in found[name]]
                for line in values if len(values) > 1 else []:
                    axis.plot(epochs, line, **LINES[name], linewidth=0.6, alpha=0.5)
                means = [statistics.mean(column) for column in zip(*values, strict=True)]
                axis.plot(epochs, means, **LINES[name], linewidth=2, label=name)
            axis.set(title=f"{title}: {label}", xlabel="epoch", xlim=(0, None))
            axis.set_ylim(bottom=-0.03 * axis.get_ylim()[1])  # a line at 0 is to be seen
            axis.title.set_fontsize(10)
    named = {name: line for axis in axes[:, 0] for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def steps(preset: Preset, tiles: int, turn: Connection) -> None:
    """Make a step whenever asked, and answer its wall time, its processor time and the largest memory so far (GB)."""
    import torch

    from histill.methods.mirror.model import MIRROR
    from histill.methods.mirror.module import PretrainModule

    torch.manual_seed(0)
    features, genes = 1024, 3000
    edge = int(tiles**0.5) + 1
    place = torch.arange(tiles)
    cells = torch.stack([torch.zeros_like(place), place % edge, place // edge], dim=1).expand(BATCH, -1, -1)
    data = batch(torch.randn(BATCH, tiles, features), cells, torch.randn(BATCH, genes))
    model_options, loss_options = preset
    tokens = tiles if model_options else None
    model = MIRROR({"20x": features}, genes, dim=256, heads=8, landmarks=128, tokens=tokens, **model_options)
    module = PretrainModule(model, learning_rate=1e-4, weight_decay=0.0, **loss_options)
    optimizer = torch.optim.AdamW(module.parameters())
    while turn.recv():
        wall, processor = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        torch.stack(list(module.losses(module.see(module.with_tiles(data))).values())).sum().backward()
        optimizer.step()
        model.constrain()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        turn.send((time.perf_counter() - wall, time.process_time() - processor, memory))


def compare(tiles: int, count: int) -> None:
    """Let the presets take turns and print what a step of each takes."""
    context = multiprocessing.get_context("spawn")
    names, ends, workers = ("default", "published"), {}, []
    for name in names:
        ends[name], other = context.Pipe()
        workers.append(context.Process(target=steps, args=(PRESETS[name], tiles, other)))
        workers[-1].start()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for turn in range(count + 1):
        for name, end in ends.items():
            end.send(True)
            figures = end.recv()
            if turn:  # the first step allocates
                found[name].append(figures)
    for end in ends.values():
        end.send(False)
    for worker in workers:
        worker.join()
    print(f"| step of {BATCH} bags of {tiles} tiles | wall | processor | peak memory |\n|---|---|---|---|")
    for name, rows in found.items():
        wall, processor, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {wall:.2f} s | {processor:.2f} s | {memory:.2f} GB |")
    ratios = [b[0] / a[0] for a, b in zip(found["default"], found["published"], strict=True)]
    print(f"published / default, turn by turn: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--collapse", action="store_true")
    task.add_argument("--cohort", type=Path, metavar="CONFIG")
    task.add_argument("--figure", type=Path, metavar="PNG")
    task.add_argument("--steps", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks-runs"))
    parser.add_argument("--tiles", type=int, default=2048)
    parser.add_argument("--count", type=int, default=5)
    given = parser.parse_args()
    if given.collapse:
        collapse(given.seeds, given.epochs, given.workers, given.out)
    elif given.cohort:
        cohort(given.cohort, given.out)
    elif given.figure:
        draw(given.out, given.figure)
    else:
        compare(given.tiles, given.count)


if __name__ == "__main__":
    main()
