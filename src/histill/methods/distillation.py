"""From a frozen teacher to a student that reads the slide alone: what is learned, and how it is weighed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histill.data.fold import Cohort, Labels
from histill.methods.checkpoint import Checkpoint
from histill.methods.module import SupervisedModule


def distil_logits(student: Tensor, teacher: Tensor, *, temperature: float, survival: bool) -> Tensor:
    """Distance of the student's logits [B, C] from the teacher's, one value a patient [B].

    Classification: T² KL(teacher ‖ student) of the softened distributions (Hinton et al. 2015). Survival: the same for
    each interval's hazard as a Bernoulli distribution, mean over intervals, since hazards are no distribution over
    intervals. Zero exactly when the logits are equal.
    """
    student, teacher = student / temperature, teacher / temperature
    if not survival:
        own, target = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
        return temperature**2 * (target.exp() * (target - own)).sum(dim=-1)
    event = torch.sigmoid(teacher) * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no_event = torch.sigmoid(-teacher) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * (event + no_event).mean(dim=-1)


def distil_features(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cosine of features [B, d], one value a patient [B].

    It is free of scale, so the widths of tanh do not matter.
    """
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


@dataclass
class Lessons:
    """A frozen teacher's outputs for the bags it can read.

    Attributes
    ----------
    bags
        Their names: patients, or slides, with slide and RNA.
    patients
        The patient of each.
    fitted
        Which of them the student is trained on, bool [I]; the others are of the inner validation.
    outputs
        Name -> level -> [I, ...] (`histill.methods.predict.network_outputs`).
    weights
        Of the teacher's network.
    """

    bags: list[str]
    patients: list[str]
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
        patients = [paired[number] for number in bags.patient]
        fitted = torch.tensor([patient in own for patient in patients], dtype=torch.bool)
        return cls(bags.names, patients, fitted, network_outputs(teacher, cohort, paired, device=device), weights)

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


class StudentModule(SupervisedModule):
    """Task loss, and the distance from a frozen teacher's stored outputs.

    Targets of a patient: `taught` (1 where the teacher saw slide and genes, else 0), `teacher:logits:<level>`,
    `teacher:<feature>:<level>`. The weights do not depend on which terms are on.

    Parameters
    ----------
    distance
        Of features: `cosine` of each, or `mse` over all of them (published by the disentangled method).
    hazards
        Logits of survival are compared as `bernoulli` distributions, or by `softmax` (published likewise).
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        *,
        temperature: float,
        lambda_logit: float,
        lambda_feature: float,
        distance: str = "cosine",
        hazards: str = "bernoulli",
        **training: Any,
    ):
        super().__init__(model, labels, **training)
        self.temperature, self.distance, self.hazards = temperature, distance, hazards
        self.lambda_logit, self.lambda_feature = lambda_logit, lambda_feature

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        targets = batch["targets"]
        logit = feature = torch.zeros_like(targets["taught"])
        for level, logits in output["logits"].items():
            if f"teacher:logits:{level}" not in targets:
                continue  # no patient with RNA has a tile there
            taught = targets["taught"] * batch["mask"][level].any(dim=-1)
            logit = logit + taught * distil_logits(
                logits,
                targets[f"teacher:logits:{level}"],
                temperature=self.temperature,
                survival=self.survival and self.hazards == "bernoulli",
            )
            feature = feature + taught * self._features(output["features"], targets, level)
        return {"distil_logit": self.lambda_logit * logit, "distil_feature": self.lambda_feature * feature}

    def _features(self, features: dict[str, dict[str, Tensor]], targets: dict[str, Tensor], level: str) -> Tensor:
        pairs = [(by_level[level], targets[f"teacher:{k}:{level}"]) for k, by_level in features.items()]
        if self.distance == "mse":
            return ((torch.cat([a for a, _ in pairs], dim=-1) - torch.cat([b for _, b in pairs], dim=-1)) ** 2).mean(-1)
        return torch.stack([distil_features(own, goal) for own, goal in pairs]).mean(dim=0)
