"""What the teacher and the student add to the task loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from histill.subspaces import SUBSPACES


def orthogonality(output: dict[str, dict[str, Tensor]]) -> Tensor:
    """Squared cosine between the two subspaces' features, one value a patient [B], mean over levels.

    The explicit disentanglement term of specification §7 (6); the public code has none.
    """
    first, second = SUBSPACES
    terms = [
        F.cosine_similarity(output[first][level], output[second][level], dim=-1) ** 2 for level in output["logits"]
    ]
    return torch.stack(terms).mean(dim=0)


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
    """1 − cosine of a subspace's features [B, d], one value a patient [B].

    It is free of scale, so the widths of tanh do not matter.
    """
    return 1 - F.cosine_similarity(student, teacher, dim=-1)
