"""What a job asks a scheduler for: memory and time, from its slides, the encoders and the size of the cohort.

They are estimates of what a job needs, not limits of what it may take. A scheduler that ends a job for taking more is
asked for more at the next attempt; on a workstation they say how many jobs fit beside each other. A job that is ended
loses at most the slide, or the training run, in flight.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from histill.encoders import recipes
from histill.plan import Plan

DAY = 1440  # minutes; partitions commonly allow no longer job

_SLIDE_MB = 500  # of an open slide, beside its file's size: 465 MB were measured at 150,000 × 100,000 px
_NETWORK_MB = 3000  # torch, and a GPU's context
# float32 weights, twice: as a file and as a network.
_MB_PER_MILLION_PARAMETERS = 8
# ViT-S (22 million parameters) encodes 18 tiles a second on two threads; a slide has some 20,000 tiles.
_MINUTES_PER_MILLION_PARAMETERS = {"cpu": 0.2, "gpu": 0.005}


@dataclass(frozen=True)
class Demand:
    """What one stage asks for.

    Attributes
    ----------
    mb, minutes
        Of any job of the stage.
    open_slides
        Slides of its batch that a job has open at once.
    mb_per_patient
        Of the cohort.
    minutes_per_slide
        Of the batch.
    """

    mb: int
    minutes: int
    open_slides: int = 0
    mb_per_patient: float = 0.0
    minutes_per_slide: float = 0.0


# Measured peaks are in docs/cluster.md; `mb` also holds what Snakemake itself takes inside a cluster's job.
DEMANDS = {
    "demo": Demand(3000, 60),
    "inspect": Demand(1000, 15, open_slides=1, minutes_per_slide=0.5),
    "tissue": Demand(1000, 30, open_slides=1, minutes_per_slide=2),
    "tiles": Demand(1000, 30, open_slides=1, minutes_per_slide=2),
    "features": Demand(1000, 60, open_slides=2, minutes_per_slide=2),  # the next one is opened while one is read
    "features_import": Demand(8000, 240),
    "transcriptome": Demand(2000, 60, mb_per_patient=0.6),
    "cohort": Demand(1500, 30, mb_per_patient=0.1),
    "audit": Demand(2000, 60, mb_per_patient=0.3),
    "train": Demand(3000, 720, mb_per_patient=1),
    "predict": Demand(3000, 120, mb_per_patient=1),
    "evaluate": Demand(2000, 60, mb_per_patient=0.1),
    "bundle": Demand(3000, 60, mb_per_patient=0.1),
    "report": Demand(2000, 60, mb_per_patient=0.2),
}


def memory_mb(plan: Plan, stage: str, batch: str | None = None, attempt: int = 1) -> int:
    """Memory of a job, MB. `attempt` counts from 1; each further one asks for as much again."""
    demand = DEMANDS[stage]
    wanted = demand.mb
    if demand.mb_per_patient:
        wanted += demand.mb_per_patient * len(plan.sheets.patients())
    if demand.open_slides:
        wanted += demand.open_slides * _slide_mb(plan, batch)
    if stage == "features":
        wanted += _encoders_mb(plan)
    if stage == "tissue" and plan.config["tissue"]["method"] != "colour":
        wanted += _NETWORK_MB
    if stage == "train":
        wanted *= plan.config["training"]["devices"]
    return attempt * round(wanted)


def minutes(plan: Plan, stage: str, batch: str | None = None, attempt: int = 1) -> int:
    """Time of a job, minutes, a day at most. `attempt` counts from 1; each further one asks for as much again."""
    demand = DEMANDS[stage]
    wanted = demand.minutes
    if stage == "train" and plan.config["training"]["jobs"] == "per_fold":
        wanted /= 3
    if batch is not None:
        each = demand.minutes_per_slide + (_encoding_minutes(plan) if stage == "features" else 0)
        wanted += each * len(plan.batches[batch])
    return min(DAY, attempt * round(wanted))


def memory_of_machine(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Memory that programs of this process's control group may take together, MB: the machine's, or a container's."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += _limits([groups / "memory" / "memory.limit_in_bytes"])  # version 1, of a container
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            limits += _limits_above(groups, group, "memory.max")
        elif "memory" in controllers.split(","):  # version 1, where schedulers give each job a group
            limits += _limits_above(groups / "memory", group, "memory.limit_in_bytes")
    return min(limits) // 10**6


def _limits_above(root: Path, group: str, name: str) -> list[int]:
    """Limits of a group and of those above it, which hold for it too."""
    place = root / group.lstrip("/")
    return _limits(folder / name for folder in (place, *place.parents) if folder.is_relative_to(root))


def _limits(files: Iterable[Path]) -> list[int]:
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdigit()]  # not `max`


def _slide_mb(plan: Plan, batch: str | None) -> float:
    """Memory of the largest slide of a batch: what it may take at most, or less if its file is small."""
    files = (Path(slide.path) for slide in plan.slides(batch)) if batch is not None else ()
    # Slides that the demo has yet to paint are small.
    largest = max((file.stat().st_size for file in files if file.is_file()), default=0)
    return min(plan.config["slides"]["memory_mb"], _SLIDE_MB + largest / 10**6)


def _parameters(plan: Plan) -> list[float]:
    """Sizes of the encoders' networks, in millions; those that no recipe gives are taken for giants."""
    chosen = (recipes.get(name) for name in plan.encoders())
    return [1000.0 if one.parameters is None else one.parameters for one in chosen if one.builder != "descriptor"]


def _encoders_mb(plan: Plan) -> float:
    networks = _parameters(plan)
    return _NETWORK_MB * bool(networks) + _MB_PER_MILLION_PARAMETERS * sum(networks)


def _encoding_minutes(plan: Plan) -> float:
    return _MINUTES_PER_MILLION_PARAMETERS["gpu" if plan.encoder_gpus() else "cpu"] * sum(_parameters(plan))
