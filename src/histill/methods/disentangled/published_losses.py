"""What the published preset computes from its networks' outputs (specification §2.5, §2.7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

VARIANCE_SCALE = 1e4


def variance_consistency(first: Tensor, second: Tensor) -> Tensor:
    """Inter-magnification consistency of one subspace: 10⁴ times the variance over patients of the matched similarity.

    With a_i the flattened maps, S_ij = ⟨a_i of `first`, a_j of `second`⟩ and rows of S divided by their norm, it is
    10⁴ Var_i(S_ii), unbiased. The published total is the sum over subspaces. It only asks that the similarity be equal
    over patients, never that it be high: maps that are uniform everywhere minimise it.

    Parameters
    ----------
    first, second
        Maps of the two magnifications [n, ...] of the same patients. With several devices it is taken on each alone.

    Returns
    -------
    Tensor
        A scalar, float32; 0 for a single patient, where a variance is not defined (the public code gives NaN).
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = (maps.flatten(1).float() for maps in (first, second))
        if len(first) < 2:
            return first.new_zeros(())
        similarity = F.normalize(first @ second.T, dim=1)
        return VARIANCE_SCALE * similarity.diagonal().var()
