"""What training the disentangled method needs beside the shared loop: gene sets, arguments, the teacher's lessons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.data.expression import ExpressionTransform, GeneSets
from histill.data.fold import Cohort, Labels
from histill.methods.checkpoint import Checkpoint
from histill.methods.disentangled.module import StudentModule, TeacherModule
from histill.methods.module import SupervisedModule
from histill.subspaces import JOINT, SUBSPACES

_TEACHER = ("network", "dim", "heads", "dropout", "gene_dropout", "queries", "context", "magnifications")
_STUDENT = ("network", "dim", "dropout", "aggregation", "tokens", "context", "magnifications")


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


@dataclass
class Lessons:
    """A frozen teacher's outputs for the bags it can read.

    Attributes
    ----------
    bags
        Their names: patients, or slides, with slide and RNA.
    fitted
        Which of them the student is trained on, bool [I]; the others are of the inner validation.
    outputs
        Name -> level -> [I, ...] (`histill.methods.predict.network_outputs`).
    weights
        Of the teacher's network.
    """

    bags: list[str]
    fitted: Tensor
    outputs: dict[str, dict[str, Tensor]]
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, cohort: Cohort, training: list[str], validation: list[str], *, device: str) -> Lessons:
        """Ask the teacher below `folder` about the patients that have RNA."""
        from histill.methods.predict import bags_of, network_outputs

        teacher = Checkpoint.read(folder)
        paired = [patient for patient in training + validation if cohort.value(patient, "has_rna")]
        weights = {name: torch.from_numpy(value) for name, value in teacher.weights.items()}
        bags = bags_of(teacher, cohort, paired)
        own = set(training)
        fitted = torch.tensor([paired[patient] in own for patient in bags.patient], dtype=torch.bool)
        return cls(bags.names, fitted, network_outputs(teacher, cohort, paired, device=device), weights)

    def targets(self, bags: list[str]) -> dict[str, Tensor]:
        """What the student learns from, a row a bag; zeros and `taught` 0 for those the teacher cannot read."""
        row = {bag: index for index, bag in enumerate(self.bags)}
        known = [index for index, bag in enumerate(bags) if bag in row]
        source = torch.tensor([row[bags[index]] for index in known], dtype=torch.int64)
        targets = {"taught": torch.zeros(len(bags))}
        targets["taught"][known] = 1.0
        for name, levels in self.outputs.items():
            if name != "logits" and not name.startswith("features:"):
                continue
            for level, value in levels.items():
                full = torch.zeros(len(bags), value.shape[1])
                full[known] = value[source]
                targets[f"teacher:{name.removeprefix('features:')}:{level}"] = full
        return targets

    def prototypes(self, subspaces: list[str]) -> dict[str, Tensor]:
        """Level -> what the genes of each subspace looked at [K, d], standardised as the student's tiles are."""
        return {
            level: torch.stack([self._mean_seen(k, level) for k in subspaces])
            for level in self.outputs["logits"]
            if f"seen:{subspaces[0]}" in self.outputs
        }

    def _mean_seen(self, subspace: str, level: str) -> Tensor:
        seen = self.outputs[f"seen:{subspace}"][level][self.outputs["present"][level] & self.fitted]
        return F.layer_norm(seen, seen.shape[-1:]).mean(dim=0)

    def begin(self, student: nn.Module) -> None:
        """Let the student see tiles as the teacher does, look for what its genes looked at, and judge by its head."""
        own = student.state_dict()
        begun = ("tiles.", "head.")
        own |= {name: value for name, value in self.weights.items() if name.startswith(begun) and name in own}
        if student.has_prototypes:
            goals = self.prototypes(student.subspaces)
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
        lessons.begin(network)
    goals = lessons.prototypes(network.subspaces) if network.has_prototypes else {}
    return StudentModule(network, labels, prototypes=goals, **options, **training)
