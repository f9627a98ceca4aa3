"""From logits to predictions, and the task losses that all methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-7


def fuse(logits: dict[str, Tensor], present: dict[str, Tensor], survival: bool, *, rule: str = "mean") -> Tensor:
    """One prediction of the magnifications a patient has.

    Parameters
    ----------
    logits
        Magnification -> [B, C].
    present
        Magnification -> [B] bool: whether the patient has a tile there.
    rule
        `mean` of the predictions, or `most_confident`: that of the magnification whose softmax has the largest maximum.

    Returns
    -------
    Probabilities [B, C] of the classes, or hazards [B, C] of the intervals; zeros for a patient without any tile.
    """
    if rule == "most_confident":
        return most_confident(logits, present, survival)
    predicted = torch.stack([probabilities(value, survival) for value in logits.values()])
    weight = torch.stack([present[name] for name in logits]).to(predicted.dtype).unsqueeze(-1)
    return (predicted * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)


def most_confident(logits: dict[str, Tensor], present: dict[str, Tensor], survival: bool) -> Tensor:
    """Prediction of the magnification whose softmax has the largest maximum, patient by patient (published).

    The softmax chooses for survival too, although the logits are hazards there. Ties go to the last magnification. The
    choice gets no gradient.

    Arguments and result are those of `fuse`; a magnification that is missing is never chosen.
    """
    levels = list(logits)[::-1]
    stacked = torch.stack([logits[level] for level in levels])
    there = torch.stack([present[level] for level in levels])
    confidence = stacked.detach().softmax(dim=-1).amax(dim=-1).masked_fill(~there, -1)
    chosen = stacked[confidence.max(dim=0).indices, torch.arange(stacked.shape[1], device=stacked.device)]
    predicted = probabilities(chosen, survival)
    return predicted * there.any(dim=0).unsqueeze(-1)


def probabilities(logits: Tensor, survival: bool) -> Tensor:
    """Class probabilities, or hazards, of logits [B, C]."""
    return torch.sigmoid(logits) if survival else torch.softmax(logits, dim=-1)


def survival(hazards: Tensor) -> Tensor:
    """Survival [B, C] at the end of each interval, S_j = Π_{i≤j} (1 − h_i)."""
    return torch.cumprod(1 - hazards, dim=-1)


def risk(hazards: Tensor) -> Tensor:
    """Risk [B] = −Σ_j S_j; rises with every hazard."""
    return -survival(hazards).sum(dim=-1)


def survival_loss(hazards: Tensor, interval: Tensor, event: Tensor) -> Tensor:
    """Negative log-likelihood of discrete-time survival, one value a patient [B].

    With S_{−1} = 1 and interval y: −log S_{y−1} − log h_y for an event, −log S_y for a censored patient
    (Zadeh & Schmid, IEEE TPAMI 2021, without their extra weight of uncensored patients).
    """
    survive = torch.log((1 - hazards).clamp(min=_EPSILON)).cumsum(dim=-1)
    before = F.pad(survive, (1, 0))[:, :-1]
    at = interval.unsqueeze(-1)
    hazard = torch.log(hazards.clamp(min=_EPSILON)).gather(-1, at).squeeze(-1)
    observed = before.gather(-1, at).squeeze(-1) + hazard
    censored = survive.gather(-1, at).squeeze(-1)
    return -torch.where(event.bool(), observed, censored)


def classification_loss(predicted: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of class probabilities [B, C], one value a patient [B]."""
    own = predicted.clamp(min=_EPSILON).gather(-1, label.unsqueeze(-1)).squeeze(-1)
    return -weights[label] * torch.log(own)


def task_loss(predicted: Tensor, label: Tensor, event: Tensor, weights: Tensor | None) -> Tensor:
    """Loss [B] of class probabilities (with class weights) or hazards (without)."""
    if weights is None:
        return survival_loss(predicted, label, event)
    return classification_loss(predicted, label, weights)
