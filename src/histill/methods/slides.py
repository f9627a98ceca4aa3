"""From what is predicted of single slides to what is predicted of their patients."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_over_slides(predicted: Tensor, present: Tensor, patient: Tensor) -> Tensor:
    """Mean prediction of each patient's slides; a slide without any tile says nothing.

    Parameters
    ----------
    predicted
        Probabilities or hazards [I, C] of bags: slides, or all slides of a patient together.
    present
        Whether the bag has a tile, bool [I].
    patient
        Number of the patient of each bag [I], from 0.

    Returns
    -------
    Predictions [P, C]; zeros for a patient whose slides have no tile.
    """
    patient = patient.long()
    weight = present.to(predicted.dtype)
    count = int(patient.max()) + 1 if len(patient) else 0
    total = torch.zeros(count, predicted.shape[1], dtype=predicted.dtype, device=predicted.device)
    total.index_add_(0, patient, predicted * weight[:, None])
    slides = torch.zeros(count, dtype=predicted.dtype, device=predicted.device).index_add_(0, patient, weight)
    return total / slides.clamp(min=1)[:, None]
