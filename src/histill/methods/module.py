"""The supervised LightningModule that every network is trained by."""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn

from histill.data.fold import Labels
from histill.methods.outputs import fuse, probabilities, task_loss


class SupervisedModule(lightning.LightningModule):
    """Task loss at every magnification and on their mean; subclasses add their own terms in `extra_losses`.

    The learning rate falls along a cosine over the true number of optimiser steps, after one warm-up epoch. The
    validation figure is the task loss of the fused prediction.
    """

    def __init__(self, model: nn.Module, labels: Labels, *, learning_rate: float, weight_decay: float):
        super().__init__()
        self.model = model
        self.survival = labels.task.type == "survival"
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.register_buffer("weights", None if self.survival else torch.tensor(labels.weights, dtype=torch.float32))

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        """Further terms, name -> weighted value a patient [B]."""
        return {}

    def losses(self, batch: dict) -> dict[str, Tensor]:
        """Every term, one value a patient [B]."""
        output = self.model(batch)
        # Under mixed precision a hazard near 0 would round its complement to 1 in half precision.
        output["logits"] = {level: logits.float() for level, logits in output["logits"].items()}
        label, event = batch["targets"]["label"], batch["targets"]["event"]
        present = {level: mask.any(dim=-1) for level, mask in batch["mask"].items()}
        predicted = {level: probabilities(logits, self.survival) for level, logits in output["logits"].items()}
        predicted["fused"] = fuse(output["logits"], present, self.survival)
        present["fused"] = torch.ones_like(label, dtype=torch.bool)
        terms = {
            name: task_loss(value, label, event, self.weights) * present[name] for name, value in predicted.items()
        }
        return {**terms, **self.extra_losses(output, batch)}

    def training_step(self, batch: dict, _: int) -> Tensor:
        terms = self.losses(batch)
        total = torch.stack([term.mean() for term in terms.values()]).sum()
        size = len(batch["targets"]["label"])
        self.log("train_loss", total, on_step=False, on_epoch=True, batch_size=size)
        for name, term in terms.items():
            self.log(f"train_{name}", term.mean(), on_step=False, on_epoch=True, batch_size=size)
        return total

    def validation_step(self, batch: dict, _: int) -> None:
        fused = self.losses(batch)["fused"]
        self.log("validation_loss", fused.mean(), on_epoch=True, batch_size=len(fused))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, steps // max(1, self.trainer.max_epochs))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            progress = (step - warm) / max(1, steps - warm)
            return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, progress))).item())

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
