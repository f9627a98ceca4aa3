"""The stages, what each one reads from the config, and the recipe that decides whether it runs again.

A recipe is the digest of the config keys a stage reads, of its `version`, and of the recipes it builds on. Snakemake
tracks it as a parameter and every receipt carries it, so a change of `tiles.overlap` reruns tiling and what follows,
and nothing before it, while an edit in `src/` that changes no result reruns nothing.

Raise `version` in the commit that changes what a stage writes; the golden tests in `tests/test_golden.py` fail when the
output changes and the version does not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from histill.provenance import digest


@dataclass(frozen=True)
class Stage:
    """One node of the workflow.

    Attributes
    ----------
    version
        Raised when the stage writes something else for the same input.
    keys
        Dotted config keys that the stage reads; `{task}` is filled in for model stages.
    after
        Stages whose recipes are part of this one's.
    """

    version: int
    keys: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


_AREAS = ("tissue.mpp", "tissue.min_area_mm2", "tissue.min_hole_mm2")
_FEATURES = ("features.source", "features.encoder")
_EXTRACT = ("features.weights", "features.allow_off_recipe", "features.stain_normalisation")
_FOLDS = tuple(f"folds.{key}" for key in ("n", "repeats", "seed", "file", "sites", "external"))
STAGES = {
    "demo": Stage(1, ("demo",)),
    # Limits of time and memory change no result, so they are in no recipe.
    "inspect": Stage(2, ("slides.reader", "slides.icc", "slides.resample", "slides.allow_upsampling")),
    "tissue": Stage(3, ("tissue.method", "tissue.weights", *_AREAS), ("inspect",)),
    "tiles": Stage(2, ("tiles",), ("tissue",)),
    "features": Stage(3, (*_FEATURES, *_EXTRACT), ("tiles",)),
    "features_import": Stage(2, _FEATURES),
    "transcriptome": Stage(3, ("transcriptome.matrix", "transcriptome.gene_sets")),
    "cohort": Stage(2, ("tasks", *_FOLDS, "training.validation_fraction")),
    "audit": Stage(1, ("folds.audit", "features.encoder"), ("cohort",)),
    "predict": Stage(4, ("tasks.{task}",)),
    "evaluate": Stage(2, ("evaluation", "tasks.{task}"), ("predict",)),
    "report": Stage(5, ("report",)),
}
SLIDE_STAGES = ("inspect", "tissue", "tiles", "features")  # that work slide by slide, in this order


@dataclass(frozen=True)
class ModelStage(Stage):
    """A stage that trains.

    Attributes
    ----------
    kind
        What is trained; stages of one kind have the same network.
    reads
        What it needs of a patient to predict: `slide`, `rna`.
    learns_from
        What it needs of a patient in training, where that is something else.
    files
        Config keys of files whose content it reads.
    chooses_by
        Config key that names a task whose classes it reads, though it does not learn from them.
    labels
        Whether it learns from outcomes. A stage that does not is trained once for all tasks, and predicts nothing.
    """

    kind: str = ""
    reads: tuple[str, ...] = ()
    learns_from: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    chooses_by: str = ""
    labels: bool = True

    def __post_init__(self):
        if not self.learns_from:
            object.__setattr__(self, "learns_from", self.reads)


# What can be trained: method -> stage. `after` names stages of the same method.
_SHARED = ("training.model", "training.slides", "tasks.{task}")
_GENES = ("transcriptome.gene_sets", "transcriptome.transform", "training.hide_rna")
# Key by key: a change that one network does not know of leaves it as it is.
_NETWORK = tuple(
    f"methods.disentangled.model.{key}"
    for key in ("network", "fusion", "magnifications", "dim", "heads", "dropout", "context")
)
_TEACHER = (*_NETWORK, *(f"methods.disentangled.model.{key}" for key in ("gene_dropout", "queries")))
_STUDENT = (*_NETWORK, *(f"methods.disentangled.model.{key}" for key in ("aggregation", "tokens")))
# Without labels there is nothing to stop early for: such stages have epochs of their own.
_PRETRAINING = (
    "training.slides",
    "training.validation_fraction",
    "training.model.accumulate",
    "training.model.precision",
)
_MIRROR = tuple(f"methods.mirror.{section}" for section in ("model", "genes", "pretrain"))
_CASES = ("dim", "neighbours", "layers", "hidden", "unit", "pooling", "dropout")
_MSRL = (
    "training.model.max_tiles",
    "methods.msrl.cohort",
    "methods.msrl.pretrain",
    *(f"methods.msrl.model.{key}" for key in (*_CASES, "groups")),
)
_BORROW = (
    "methods.msrl.cohort",
    "methods.msrl.student",
    *(f"methods.msrl.model.{key}" for key in (*_CASES, "graph", "links", "policy", "search")),
)
_PROBE = ("training.slides", "tasks.{task}")
MODELS: dict[str, dict[str, ModelStage]] = {
    "disentangled": {
        "teacher": ModelStage(
            3,
            (*_SHARED, *_GENES, *_TEACHER, "methods.disentangled.teacher"),
            kind="teacher",
            reads=("slide", "rna"),
        ),
        "student": ModelStage(
            2,
            (*_SHARED, *_STUDENT, "methods.disentangled.student"),
            ("teacher",),
            kind="student",
            reads=("slide",),
        ),
    },
    "wsi-only": {
        "train": ModelStage(2, (*_SHARED, *_STUDENT), kind="student", reads=("slide",)),
    },
    "mirror": {
        "pretrain": ModelStage(
            1,
            (*_PRETRAINING, *_GENES, *_MIRROR),
            kind="mirror",
            reads=("slide", "rna"),
            files=("methods.mirror.genes.list",),
            chooses_by="methods.mirror.genes.rfe",
            labels=False,
        ),
        **{
            stage: ModelStage(1, (*_PROBE, "methods.mirror.probe"), ("pretrain",), kind=f"mirror-{stage}", reads=reads)
            for stage, reads in (("slide", ("slide",)), ("rna", ("rna",)), ("fused", ("slide", "rna")))
        },
        "student": ModelStage(
            1, (*_SHARED, "methods.mirror.student"), ("fused",), kind="mirror-student", reads=("slide",)
        ),
    },
    "msrl": {
        "pretrain": ModelStage(
            1,
            (*_PRETRAINING, *_GENES, *_MSRL),
            kind="msrl-pretrain",
            reads=("slide", "rna"),
            files=("methods.msrl.model.groups",),
            labels=False,
        ),
        "pretrain_slide": ModelStage(
            1,
            (*_PRETRAINING, *(key for key in _MSRL if not key.endswith("groups"))),
            kind="msrl-pretrain-slide",
            reads=("slide",),
            labels=False,
        ),
        "slide": ModelStage(2, (*_SHARED, *_BORROW), ("pretrain_slide",), kind="msrl-slide", reads=("slide",)),
        "student": ModelStage(1, (*_SHARED, *_BORROW), ("pretrain",), kind="msrl", reads=("slide",)),
        "both": ModelStage(1, (), ("student",), kind="msrl-both", reads=("slide", "rna")),
    },
    "meanpool": {"train": ModelStage(1, (*_SHARED, "methods.meanpool"), kind="meanpool", reads=("slide",))},
    "abmil": {"train": ModelStage(2, (*_SHARED, "methods.abmil"), kind="abmil", reads=("slide",))},
    "transmil": {"train": ModelStage(1, (*_SHARED, "methods.transmil"), kind="transmil", reads=("slide",))},
    "snn": {"train": ModelStage(1, (*_SHARED, *_GENES, "methods.snn"), kind="snn", reads=("rna",))},
    "mcat": {"train": ModelStage(1, (*_SHARED, *_GENES, "methods.mcat"), kind="mcat", reads=("slide", "rna"))},
    "retrieval": {
        "train": ModelStage(
            2,
            ("training.slides", "tasks.{task}", *_GENES, "methods.linear", "methods.retrieval"),
            kind="retrieval",
            reads=("slide",),
            learns_from=("slide", "rna"),
        ),
    },
    "linear-slide": {
        "train": ModelStage(2, (*_SHARED, "methods.linear"), kind="linear-slide", reads=("slide",)),
    },
    "linear-rna": {
        "train": ModelStage(4, (*_SHARED, *_GENES, "methods.linear"), kind="linear-rna", reads=("rna",)),
    },
    "linear-both": {
        "train": ModelStage(4, (*_SHARED, *_GENES, "methods.linear"), kind="linear-both", reads=("slide", "rna")),
    },
}

# Kind of model -> a stage that trains it, and what it needs of a patient.
STAGE_OF = {node.kind: node for nodes in MODELS.values() for node in nodes.values()}
READS = {kind: node.reads for kind, node in STAGE_OF.items()}

PRETRAIN = "pretrain"  # stands where a task would, for stages that learn without labels


def files(method: str, stage: str, config: dict[str, Any]) -> list[str]:
    """Files that a stage reads by the config; names of what histill ships are none."""
    asked = [select(config, key) for key in MODELS[method][stage].files]
    return [path for path in asked if path and os.path.isfile(path)]


def task_chosen_by(method: str, stage: str, config: dict[str, Any]) -> str | None:
    """The task whose classes a stage reads without learning from them; None for none."""
    key = MODELS[method][stage].chooses_by
    return select(config, key) if key else None


def needs_rna(method: str) -> bool:
    """Whether any stage of a method learns from transcriptomes."""
    return any("rna" in node.learns_from for node in MODELS[method].values())


def predictors(method: str) -> list[str]:
    """Stages of a method that predict."""
    return [stage for stage, node in MODELS[method].items() if node.labels]


def task_of(method: str, stage: str, task: str) -> str:
    """The task whose runs of a stage serve a task: the task itself, or `PRETRAIN`."""
    return task if MODELS[method][stage].labels else PRETRAIN


def select(config: dict[str, Any], key: str) -> Any:
    """Value at a dotted key; None where the config has none."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def recipe(stage: str, config: dict[str, Any], *, task: str | None = None) -> str:
    """Recipe digest of a stage under a complete config (`histill.config.load`)."""
    node = STAGES[stage]
    return _digest(stage, node, config, task, [recipe(name, config, task=task) for name in node.after])


def model_recipe(method: str, stage: str, config: dict[str, Any], *, task: str) -> str:
    """Recipe digest of one training stage of a method for a task (any, where it learns without labels)."""
    node = MODELS[method][stage]
    before = [model_recipe(method, name, config, task=task) for name in node.after]
    if named := task_chosen_by(method, stage, config):
        before.append(digest(config["tasks"][named]))
    return _digest(f"{method}/{stage}", node, config, task, before)


def _digest(name: str, node: Stage, config: dict[str, Any], task: str | None, before: list[str]) -> str:
    keys = {key.format(task=task): select(config, key.format(task=task)) for key in node.keys}
    return digest({"stage": name, "version": node.version, "config": keys, "after": before})
