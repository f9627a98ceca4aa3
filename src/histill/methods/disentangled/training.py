"""Training of the disentangled method: the teacher, the student that it teaches, and that student without a teacher."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.data.expression import ExpressionTransform, GeneSets
from histill.data.fold import Labels, fit_expression, fit_features
from histill.methods.checkpoint import Checkpoint, build_network
from histill.methods.disentangled.module import SubspaceStudentModule, TeacherModule
from histill.methods.distillation import Lessons
from histill.methods.fold_run import FoldRun
from histill.methods.module import SupervisedModule
from histill.subspaces import JOINT, SUBSPACES

_TEACHER = ("network", "dim", "heads", "dropout", "gene_dropout", "queries", "context", "magnifications")
_STUDENT = ("network", "dim", "dropout", "aggregation", "tokens", "context", "magnifications")


def train(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """A teacher, a student of one, or (`wsi-only`) a student of labels alone."""
    # One stream a run: a fold's result does not depend on which folds ran before it.
    lightning.seed_everything(run.stream, verbose=False)
    labels = run.labels()
    scalers = fit_features(run.cohort, run.training, seed=run.seed, log=run.log)
    expression = None
    if run.kind == "teacher":
        expression = fit_expression(run.cohort, run.training, gene_sets(run.config), run.config)
    features = {level: len(scaler.mean_) for level, scaler in scalers.items()}
    options = arguments(run.kind, run.config, labels, features, expression)
    network = build_network(run.kind, options)
    lessons = None
    if run.before:
        lessons = Lessons.read(run.before["teacher"], run.cohort, run.training, run.validation, device=run.device)
    if run.kind == "teacher":
        module = teacher_module(network, labels, run.config, run.optimiser)
    else:
        module = student_module(network, labels, run.config, run.optimiser, lessons)
    known = {"labels": labels, "expression": expression, "lessons": lessons}
    training = run.bags(run.training, scalers, **known, limit=run.max_tiles)
    validation = run.bags(run.validation, scalers, **known)
    if lessons is not None and run.config["methods"]["disentangled"]["student"]["begin"] == "labels":
        # Published: on the labels alone before it is taught (specification §2.9, stage ii).
        first = SupervisedModule(network, labels, **run.optimiser)
        weights, _ = run.fit(first, training, validation, part="labels")
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    weights, figures = run.fit(module, training, validation)
    figures = {"patients": len(run.training), **figures}
    return Checkpoint(run.kind, labels, options, weights, scalers, expression, {}), figures


def gene_sets(config: dict[str, Any]) -> dict[str, GeneSets]:
    """Gene sets by subspace; all in one subspace where fusion is `joint`."""
    from histill.transcriptome.gene_sets import subspaces

    spaces = subspaces(config)
    if config["methods"]["disentangled"]["model"]["fusion"] == "disentangled":
        return spaces
    return {JOINT: {f"{space} {name}": genes for space, sets in spaces.items() for name, genes in sets.items()}}


def arguments(
    kind: str, config: dict[str, Any], labels: Labels, features: dict[str, int], expression: ExpressionTransform | None
) -> dict[str, Any]:
    """Arguments of the network of a `teacher` or a `student`.

    Parameters
    ----------
    features
        Level -> number of features.
    """
    model = config["methods"]["disentangled"]["model"]
    shared = {"features": features, "outputs": labels.outputs}
    if kind == "student":
        subspaces = list(SUBSPACES) if model["fusion"] == "disentangled" else [JOINT]
        heads = {"heads": model["heads"]} if model["network"] == "deformable" else {}
        return {**shared, "subspaces": subspaces, **heads, **{name: model[name] for name in _STUDENT}}
    genes = {subspace: len(names) for subspace, names in expression.genes_.items()}
    return {**shared, "genes": genes, "members": expression.members_, **{name: model[name] for name in _TEACHER}}


def prototypes(lessons: Lessons, subspaces: list[str]) -> dict[str, Tensor]:
    """Level -> what the genes of each subspace looked at [K, d], standardised as the student's tiles are."""
    return {
        level: torch.stack([_mean_seen(lessons, k, level) for k in subspaces])
        for level in lessons.outputs["logits"]
        if f"seen:{subspaces[0]}" in lessons.outputs
    }


def _mean_seen(lessons: Lessons, subspace: str, level: str) -> Tensor:
    seen = lessons.outputs[f"seen:{subspace}"][level][lessons.outputs["present"][level] & lessons.fitted]
    return F.layer_norm(seen, seen.shape[-1:]).mean(dim=0)


def begin(student: nn.Module, lessons: Lessons) -> None:
    """Let the student see tiles as the teacher does, look for what its genes looked at, and judge by its head."""
    own = student.state_dict()
    begun = ("tiles.", "head.")
    own |= {name: value for name, value in lessons.weights.items() if name.startswith(begun) and name in own}
    if student.has_prototypes:
        goals = prototypes(lessons, student.subspaces)
        own |= {f"aggregate.{level}.prototypes": goals[level] for level in student.tiles if level in goals}
    student.load_state_dict(own)


def teacher_module(
    network: nn.Module, labels: Labels, config: dict[str, Any], training: dict[str, Any]
) -> TeacherModule:
    """The teacher as it is trained."""
    return TeacherModule(network, labels, **config["methods"]["disentangled"]["teacher"], **training)


def student_module(
    network: nn.Module, labels: Labels, config: dict[str, Any], training: dict[str, Any], lessons: Lessons | None
) -> SupervisedModule:
    """The student as it is trained: from a teacher's lessons, or (`wsi-only`) from labels alone."""
    if lessons is None:
        return SupervisedModule(network, labels, **training)
    options = dict(config["methods"]["disentangled"]["student"])
    if options.pop("begin") == "teacher":
        begin(network, lessons)
    goals = prototypes(lessons, network.subspaces) if network.has_prototypes else {}
    return SubspaceStudentModule(network, labels, prototypes=goals, **options, **training)
