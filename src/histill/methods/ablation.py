"""Ablations: the disentangled method with one of its contributions taken away, by config.

A variant changes keys of `methods.disentangled`. A stage whose recipe it leaves as it is, is the full model's: nothing
is trained twice. Folds, seeds, tasks and all else are those of the config.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from histill.config import check_disentangled
from histill.errors import HistillError
from histill.provenance import digest
from histill.stages import MODELS, model_recipe, recipe

METHOD = "disentangled"
ROLES = tuple(MODELS[METHOD])
VERSION = 1  # of the table; raised when it holds something else for the same predictions
Changes = dict[str, dict[str, Any]]  # section of methods.disentangled -> key -> value


@dataclass(frozen=True)
class Variant:
    """What is compared with the full model.

    Attributes
    ----------
    meaning
        In the table: what the model is without.
    changes
        Section of `methods.disentangled` (`model`, `teacher`, `student`) -> key -> value.
    student
        (method, stage) that stands for the student.
    """

    name: str
    meaning: str
    changes: Changes
    student: tuple[str, str] = (METHOD, "student")


@dataclass(frozen=True)
class Node:
    """A trained stage of a variant, as `histill.stages.MODELS` calls it, and the name of the folder of its runs."""

    method: str
    stage: str
    folder: str


_NO_CONSISTENCY = dict.fromkeys(("lambda_gram", "lambda_gene", "lambda_map", "lambda_variance"), 0.0)
_NO_DISTILLATION = dict.fromkeys(("lambda_logit", "lambda_feature", "lambda_prototype"), 0.0)
BUILT_IN = {
    variant.name: variant
    for variant in (
        Variant("no-disentanglement", "one subspace with the genes of both", {"model": {"fusion": "joint"}}),
        Variant(
            "no-coordination",
            "gradients of the subspaces are added as they are",
            {"teacher": {"coordination": "none"}},
        ),
        Variant("no-consistency", "magnifications are trained side by side", {"teacher": _NO_CONSISTENCY}),
        Variant(
            "no-aggregation",
            "each subspace is the mean of all tiles",
            {"model": {"aggregation": "mean"}, "student": {"lambda_prototype": 0.0}},
        ),
        # Without anything to learn from it the teacher is not asked at all, not even for where to start.
        Variant(
            "no-distillation",
            "the student learns from labels alone (wsi-only)",
            {"student": _NO_DISTILLATION},
            student=("wsi-only", "train"),
        ),
    )
}


def variants(config: dict[str, Any]) -> list[Variant]:
    """Variants of a config: those of `ablation.variants`, then those of `ablation.own`.

    Where `ablation.variants` is null, every built-in one that takes something away from the method as configured.
    """
    names = config["ablation"]["variants"]
    if names is None:
        names = [name for name, variant in BUILT_IN.items() if not _idle(config, variant)]
    own = [_own(name, changes) for name, changes in config["ablation"]["own"].items()]
    return [*(BUILT_IN[name] for name in names), *own]


def tasks(config: dict[str, Any]) -> list[str]:
    """Tasks that the ablation is made for."""
    asked = config["ablation"]["tasks"]
    return list(config["tasks"]) if asked is None else asked


def check(config: dict[str, Any]) -> list[str]:
    """Why the ablation of a config cannot be made, one line each; nothing where it can."""
    options, problems = config["ablation"], []
    if METHOD not in config["methods"]["run"]:
        problems.append(
            f"config key 'methods.run': '{METHOD}' is not there, and the ablation takes parts away from it; add it"
        )
    if not config["tasks"]:
        problems.append("config key 'tasks': there is no task to make the ablation for; add one")
    unknown = [name for name in tasks(config) if name not in config["tasks"]]
    problems += [f"config key 'ablation.tasks': there is no task '{name}' in tasks" for name in unknown]
    taken = [name for name in options["own"] if name in BUILT_IN]
    problems += [f"config key 'ablation.own.{name}': a built-in variant has this name; give another" for name in taken]
    for variant in variants(config):
        if reason := _idle(config, variant):
            key = "own" if variant.name in options["own"] else "variants"
            problems.append(f"config key 'ablation.{key}': '{variant.name}' {reason}; leave it out")
        changed = configure(config, variant.name)["methods"][METHOD]
        problems += [f"variant '{variant.name}' of the ablation: {problem}" for problem in check_disentangled(changed)]
    if not problems and not variants(config):
        problems.append("config key 'ablation.variants': there is no variant; name one, or leave the key out")
    return problems


def find(config: dict[str, Any], name: str) -> Variant:
    """A variant of the config by name.

    Raises
    ------
    HistillError
        Where the config has no such variant.
    """
    found = {variant.name: variant for variant in variants(config)}
    if name not in found:
        raise HistillError(
            f"the ablation has no variant '{name}'; it has {', '.join(found) or 'none'}",
            mend="add it to ablation.variants or ablation.own",
        )
    return found[name]


def configure(config: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The complete config of a variant; the config itself for None, the full model."""
    return config if name is None else _changed(config, find(config, name).changes)


def node(config: dict[str, Any], name: str | None, role: str, *, task: str) -> Node:
    """What stands for the `teacher` or the `student` of a variant (None: the full model), and where its runs lie.

    Parameters
    ----------
    config
        Of the full model.
    """
    method, stage = find(config, name).student if name and role == "student" else (METHOD, role)
    return Node(method, stage, folder(config, name, method, stage, task=task))


def nodes(config: dict[str, Any], name: str | None, *, task: str) -> list[Node]:
    """Teacher and student of a variant."""
    return [node(config, name, role, task=task) for role in ROLES]


def folder(config: dict[str, Any], name: str | None, method: str, stage: str, *, task: str) -> str:
    """Folder below `models/<task>` of a stage: the method's own, or `<method>.<variant>` where it is another model.

    Parameters
    ----------
    config
        Of the full model.
    name
        Variant; None: the full model.
    """
    if name is None:
        return method
    varied = model_recipe(method, stage, configure(config, name), task=task)
    return method if varied == model_recipe(method, stage, config, task=task) else f"{method}.{name}"


def table_recipe(config: dict[str, Any], *, task: str) -> str:
    """Recipe of the table of a task."""
    names = [variant.name for variant in variants(config)]
    rows = {name: [vars(part) for part in nodes(config, name, task=task)] for name in names}
    scores = recipe("evaluate", config, task=task)
    return digest({"stage": "ablation", "version": VERSION, "scores": scores, "rows": rows})


def _own(name: str, changes: Changes) -> Variant:
    said = [f"{section}.{key}: {value}" for section, keys in changes.items() for key, value in keys.items()]
    return Variant(name, ", ".join(said), changes)


def _changed(config: dict[str, Any], changes: Changes) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    for section, keys in changes.items():
        changed["methods"][METHOD][section].update(copy.deepcopy(keys))
    return changed


def _idle(config: dict[str, Any], variant: Variant) -> str | None:
    """Why a variant takes nothing away from the method as configured; None where it does."""
    network = {"model": variant.changes["model"]} if "model" in variant.changes else {}
    # Where a built-in variant changes the network, its other keys only follow from that.
    if _changed(config, network if network and variant.name in BUILT_IN else variant.changes) == config:
        return "changes nothing: the method is configured so already"
    deformable = config["methods"][METHOD]["model"]["network"] == "deformable"
    if deformable and network.get("model", {}).keys() == {"aggregation"}:
        return "cannot be had with the network 'deformable', which merges tiles by clusters of its own"
    return None
