"""What compares two views of the same samples: their loss, and figures of what was learned by it."""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(logits: Tensor, group: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018), one value a pair [B].

    ln B where nothing is told apart, 0 of one pair.

    Parameters
    ----------
    logits
        Similarity of the first view's rows to the second view's [B, B]; pairs on the diagonal.
    group
        Sample of each row [B] where one may be there more than once: its other rows are no negatives.
    """
    if group is not None:
        same = group[:, None] == group[None, :]
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, -torch.inf)
    return (logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - logits.diagonal()


def recall(scores: Tensor, group: Tensor, k: int) -> Tensor:
    """Share of the rows of scores [n, n] with a column of their own group [n] among the k best; chance is about k / n.

    Columns of others that are as good come first: of collapsed vectors nothing is found.
    """
    own = group[:, None] == group[None, :]
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    before = ((scores >= best) & ~own).sum(dim=1)
    return (before < k).float().mean()


def effective_rank(rows: Tensor, *, centred: bool = False) -> Tensor:
    """exp of the entropy of the shares of the singular values of rows [n, D]: 1 (all on a line) to min(n, D).

    NaN of rows that are not finite. `centred` takes their mean away first. Roy & Vetterli, EUSIPCO 2007.
    """
    rows = rows.double()
    if not torch.isfinite(rows).all():
        return rows.new_tensor(torch.nan)
    values = torch.linalg.svdvals(rows - rows.mean(dim=0) if centred else rows)
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp()
