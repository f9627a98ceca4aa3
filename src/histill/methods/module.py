"""The LightningModules that every network is trained by: how it is optimised, and what outcomes teach it."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from histill.data.fold import Labels
from histill.methods.outputs import fuse, probabilities, task_loss
from histill.methods.slides import mean_over_slides

GENES = "genes:"  # before the subspace, in the name of a target


class TrainedModule(lightning.LightningModule):
    """A network and its optimiser, AdamW.

    Subclasses log `train_loss` and `validation_loss` every epoch.

    Parameters
    ----------
    model
        What is saved: its `state_dict`.
    schedule
        Of the learning rate: `cosine` falls over the true number of optimiser steps, after one warm-up epoch;
        `constant` stays.
    """

    # Whether a validation batch may hold several patients: no term of the loss compares those of a batch.
    validates_together = True

    def __init__(self, model: nn.Module, *, learning_rate: float, weight_decay: float, schedule: str = "cosine"):
        super().__init__()
        self.model = model
        self.learning_rate, self.weight_decay, self.schedule = learning_rate, weight_decay, schedule

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, steps // max(1, self.trainer.max_epochs))

        def factor(step: int) -> float:
            if self.schedule == "constant":
                return 1.0
            if step < warm:
                return (step + 1) / warm
            progress = (step - warm) / max(1, steps - warm)
            return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, progress))).item())

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class SupervisedModule(TrainedModule):
    """Task loss at every magnification and on their mean (if that is how they are combined).

    Subclasses add their own terms in `extra_losses`. The validation figure is the task loss of the fused prediction and
    the terms of `extra_losses`, mean over patients: outcomes of few patients are a noisy guide, and would stop training
    before the rest is learned.
    """

    def __init__(self, model: nn.Module, labels: Labels, **training: Any):
        super().__init__(model, **training)
        self.survival = labels.task.type == "survival"
        self.register_buffer("weights", None if self.survival else torch.tensor(labels.weights, dtype=torch.float32))
        self._validation = torch.zeros(3, dtype=torch.float64)  # of the patients: task loss, all loss, number

    def inputs(self, batch: dict) -> dict:
        """A batch as the network reads it: `genes`, subspace -> [B, n], where there are such targets."""
        names = [name for name in batch["targets"] if name.startswith(GENES)]
        genes = {name.removeprefix(GENES): batch["targets"][name] for name in names}
        return {**batch, "genes": genes} if genes else batch

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        """Further terms, name -> weighted value a patient [B]."""
        return {}

    def losses(self, batch: dict) -> dict[str, Tensor]:
        """Every term, one value a patient [B]."""
        batch = self.inputs(batch)
        output, present = self._output(batch), _present(batch)
        label, event = batch["targets"]["label"], batch["targets"]["event"]
        predicted = {level: probabilities(logits, self.survival) for level, logits in output["logits"].items()}
        if self.model.magnifications == "mean":  # a choice between magnifications has no gradient to learn from
            predicted["fused"] = self.fused(output, batch)
            present["fused"] = torch.ones_like(label, dtype=torch.bool)
        terms = {
            name: task_loss(value, label, event, self.weights) * present[name] for name, value in predicted.items()
        }
        return {**terms, **self.extra_losses(output, batch)}

    def training_step(self, batch: dict, index: int) -> Tensor:
        terms = {name: (term * batch["weight"]).mean() for name, term in self.losses(batch).items()}
        total = torch.stack(list(terms.values())).sum()
        size = len(batch["weight"])
        for name, value in {"loss": total, **terms}.items():
            self.log(f"train_{name}", value, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return total

    def on_validation_epoch_start(self) -> None:
        self._validation = torch.zeros(3, dtype=torch.float64)

    def validation_step(self, batch: dict, index: int) -> None:
        """Of whole patients, each in one bag or in one a slide (`BagDataModule`)."""
        batch = self.inputs(batch)
        output, present = self._output(batch), torch.stack(list(_present(batch).values())).any(dim=0)
        _, patient = torch.unique(batch["patient"], return_inverse=True)
        own = mean_over_slides(self.fused(output, batch), present, patient)
        bags = torch.bincount(patient)
        # Bags of a patient come one after the other, and have one outcome.
        first = torch.cat([patient.new_zeros(1), bags.cumsum(dim=0)[:-1]])
        label, event = batch["targets"]["label"][first], batch["targets"]["event"][first]
        task = task_loss(own, label, event, self.weights).double().sum().item()
        share = 1 / bags.double()[patient]
        others = sum((term.double() * share).sum().item() for term in self.extra_losses(output, batch).values())
        self._validation += torch.tensor([task, task + others, len(bags)], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        # Ranks have different numbers of patients.
        task, total, patients = self.trainer.strategy.reduce(self._validation.to(self.device), reduce_op="sum")
        self.log("validation_task", (task / patients).float(), sync_dist=True)
        self.log("validation_loss", (total / patients).float(), sync_dist=True)

    def fused(self, output: dict, batch: dict) -> Tensor:
        """Class probabilities or hazards [B, C] of all magnifications together."""
        return fuse(output["logits"], _present(batch), self.survival, rule=self.model.magnifications)

    def _output(self, batch: dict) -> dict:
        output = self.model(batch)
        # Under mixed precision a hazard near 0 would round its complement to 1 in half precision.
        return {**output, "logits": {level: logits.float() for level, logits in output["logits"].items()}}


def _present(batch: dict) -> dict[str, Tensor]:
    """Level -> whether each bag has a tile there [B]."""
    return {level: mask.any(dim=-1) for level, mask in batch["mask"].items()}
