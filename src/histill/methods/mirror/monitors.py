"""Figures that show whether what is learned has collapsed. Every function takes rows of patients and gives a scalar."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from histill.methods.contrast import effective_rank, recall
from histill.methods.mirror.losses import entropy, marginal, mutual_information, posterior_kl

RECALL = (1, 10)


def variance(rows: Tensor) -> Tensor:
    """Variance over rows [n, D], mean over D: near 1 where layer-normed vectors differ freely, 0 where none does."""
    return rows.var(dim=0, unbiased=False).mean()


def modality_gap(slide: Tensor, rna: Tensor) -> Tensor:
    """Distance of the means of the unit vectors of two modalities [n, D] (Liang et al., NeurIPS 2022): 0 to 2."""
    return (F.normalize(slide, dim=-1).mean(dim=0) - F.normalize(rna, dim=-1).mean(dim=0)).norm()


def monitors(seen: dict[str, Tensor], group: Tensor) -> dict[str, Tensor]:
    """All of them.

    Entropies and information are of the prototypes, in nats: the marginal one is ln P where all are used, the
    conditional one 0 where every sample has one.

    Parameters
    ----------
    seen
        Rows of patients: `tokens` [T, D]; and with `_slide` and `_rna` behind the name `encoded` and `aligned` [n, D],
        `mean` and `log_variance` [n, k], `assignment` [n, P].
    group
        Patient of each row [n].
    """
    figures = {"token_variance": variance(seen["tokens"])}
    for modality in ("slide", "rna"):
        encoded, assignment = seen[f"encoded_{modality}"], seen[f"assignment_{modality}"]
        figures |= {
            f"variance_{modality}": variance(encoded),
            f"rank_{modality}": effective_rank(encoded, centred=True),
            f"kl_{modality}": posterior_kl(seen[f"mean_{modality}"], seen[f"log_variance_{modality}"]).mean(),
            f"information_{modality}": mutual_information(assignment),
            f"marginal_entropy_{modality}": entropy(marginal(assignment)),
            f"conditional_entropy_{modality}": entropy(assignment).mean(),
        }
    slide, rna = seen["aligned_slide"], seen["aligned_rna"]
    figures["modality_gap"] = modality_gap(slide, rna)
    scores = slide @ rna.T
    for k in RECALL:
        figures[f"recall{k}_slide_to_rna"] = recall(scores, group, k)
        figures[f"recall{k}_rna_to_slide"] = recall(scores.T, group, k)
    return figures
