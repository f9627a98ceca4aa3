"""LightningModule of MIRROR's pre-training."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from histill.errors import HistillError
from histill.methods.mirror.losses import (
    divergence,
    info_nce,
    mutual_information,
    posterior_kl,
    retention,
    same_profile,
)
from histill.methods.mirror.model import MIRROR
from histill.methods.mirror.monitors import monitors
from histill.methods.module import GENES as PREFIX
from histill.methods.module import TrainedModule
from histill.subspaces import GENES

MODALITIES = ("slide", "rna")
TOKENS_A_BAG = 64  # whose variance is watched


class PretrainModule(TrainedModule):
    """Alignment, retention of both modalities, and style clustering (§2.6).

    A bag without any tile is left out. At evaluation tokens, masks and posteriors are not random; the losses and the
    monitors (`monitor_<name>`, `histill.methods.mirror.monitors`) are of all held-out patients together.

    Parameters
    ----------
    lambda_align, lambda_slide, lambda_rna, lambda_style, lambda_cluster
        Weights of alignment, the two retentions, the posteriors' KL divergence, and clustering.
    target
        Of retention: `stopped`, without a gradient, or `free` (published).
    clustering
        `kl`: how differently the two modalities of a patient are assigned (published); any code that does not depend on
        the patient makes it 0. `information`: that, less the information between the batch's patients and prototypes
        of either modality.
    free_nats
        The KL divergence is penalised where its mean exceeds this (published: 0). It bounds the information that a
        code can hold, so it must lie well above what clustering is to keep. None: 2 ln(prototypes), twice the most that
        an assignment can tell.
    """

    def __init__(
        self,
        model: MIRROR,
        *,
        lambda_align: float = 0.5,
        lambda_slide: float = 0.15,
        lambda_rna: float = 0.15,
        lambda_style: float = 0.1,
        lambda_cluster: float = 0.1,
        target: str = "stopped",
        clustering: str = "information",
        free_nats: float | None = None,
        **training: Any,
    ):
        super().__init__(model, **training)
        self.lambdas = {
            "align": lambda_align,
            "slide": lambda_slide,
            "rna": lambda_rna,
            "style": lambda_style,
            "cluster": lambda_cluster,
        }
        self.stopped, self.informed = target == "stopped", clustering == "information"
        self.free_nats = 2 * math.log(len(model.style.prototypes)) if free_nats is None else free_nats
        self._seen: list[dict[str, Tensor]] = []

    def see(self, batch: dict) -> dict[str, Tensor]:
        """What losses and monitors are computed from: rows of bags [B, ...], float32; `tokens` [T, D] of all bags."""
        genes, weight = batch["targets"][PREFIX + GENES], batch["weight"]
        output = self.model({**batch, "genes": {GENES: genes}})
        seen = {"genes": genes, "weight": weight}
        for modality in MODALITIES:
            target, hidden = output["target"][modality], output["hidden"][modality]
            told = output["told"][modality].float()
            seen[f"retention_{modality}"] = retention(told, target.float(), hidden, stopped=self.stopped)
            style = output["style"][modality]
            rows = {name: output[name][modality] for name in ("encoded", "aligned")} | style._asdict()
            seen |= {f"{name}_{modality}": value.float() for name, value in rows.items()}
        if not self.training:
            bags = zip(output["target"]["slide"].float(), output["real"], strict=True)
            seen["tokens"] = torch.cat([_some(tokens[real]) for tokens, real in bags])
        return seen

    def losses(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every weighted term, a scalar, of `see`."""
        with torch.autocast(seen["weight"].device.type, enabled=False):
            align = info_nce(
                seen["aligned_slide"], seen["aligned_rna"], self.model.scale.float(), same_profile(seen["genes"])
            )
            cluster = divergence(seen["assignment_slide"], seen["assignment_rna"])
            rows = {
                "align": align,
                "slide": seen["retention_slide"],
                "rna": seen["retention_rna"],
                "cluster": cluster,
            }
            terms = {name: (value * seen["weight"]).mean() for name, value in rows.items()}
            kls = [posterior_kl(seen[f"mean_{m}"], seen[f"log_variance_{m}"]) for m in MODALITIES]
            means = [(kl * seen["weight"]).mean() for kl in kls]
            terms["style"] = sum((mean - self.free_nats).clamp(min=0) for mean in means)
            if self.informed:
                known = [mutual_information(seen[f"assignment_{m}"]) for m in MODALITIES]
                terms["cluster"] = terms["cluster"] - sum(known)
            return {name: weight * terms[name] for name, weight in self.lambdas.items()}

    def training_step(self, batch: dict, index: int) -> Tensor:
        batch = self.with_tiles(batch)
        size = len(batch["weight"])
        if not size:
            return 0.0 * self.model.log_scale
        terms = self.losses(self.see(batch))
        total = torch.stack(list(terms.values())).sum()
        for name, value in {"loss": total, **terms}.items():
            self.log(f"train_{name}", value, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return total

    def on_train_batch_end(self, outputs: Any, batch: dict, batch_idx: int) -> None:
        self.model.constrain()

    def on_validation_epoch_start(self) -> None:
        self._seen = []

    def validation_step(self, batch: dict, index: int) -> None:
        batch = self.with_tiles(batch)
        if len(batch["weight"]):
            self._seen.append({name: value.cpu() for name, value in self.see(batch).items()})

    def on_validation_epoch_end(self) -> None:
        ranks = [self._seen]
        if dist.is_available() and dist.is_initialized():
            ranks = [None] * dist.get_world_size()
            dist.all_gather_object(ranks, self._seen)
        parts = [part for own in ranks for part in own]
        if not parts:
            raise HistillError(
                f"no patient of the inner validation split has a tile at {self.model.level}",
                mend="pre-train on another magnification, or extract its features",
            )
        seen = {name: torch.cat([part[name] for part in parts]).to(self.device) for name in parts[0]}
        terms = self.losses(seen)
        total = torch.stack(list(terms.values())).sum()
        figures = monitors(seen, same_profile(seen["genes"]))
        named = {f"validation_{name}": value for name, value in {"loss": total, **terms}.items()}
        named |= {f"monitor_{name}": value for name, value in figures.items()}
        for name, value in named.items():
            self.log(name, value, sync_dist=True)
        self._seen = []

    def with_tiles(self, batch: dict) -> dict:
        """The bags of a batch that have a tile."""
        level = self.model.level
        there = batch["mask"][level].any(dim=1)
        return {
            **{part: {level: batch[part][level][there]} for part in ("tokens", "cells", "mask")},
            "targets": {name: rows[there] for name, rows in batch["targets"].items()},
            "weight": batch["weight"][there],
        }


def _some(rows: Tensor) -> Tensor:
    """Up to 64 rows, evenly spaced."""
    return rows[torch.linspace(0, len(rows) - 1, min(len(rows), TOKENS_A_BAG), device=rows.device).long()]
