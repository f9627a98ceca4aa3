"""LightningModules of the teacher and of the distilled student."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from histill.data.fold import Labels
from histill.methods.disentangled.coordination import SmoothedConfidence, confidence, conflict, coordinate_rows
from histill.methods.disentangled.losses import (
    gene_consistency,
    gram_consistency,
    map_consistency,
    orthogonality,
)
from histill.methods.disentangled.published_losses import variance_consistency
from histill.methods.distillation import StudentModule
from histill.methods.module import SupervisedModule
from histill.methods.outputs import probabilities, task_loss

LEVELS = ("10x", "20x")  # what inter-magnification consistency is between


class TeacherModule(SupervisedModule):
    """Task loss, what each subspace says alone, their orthogonality, and consistency of the magnifications.

    Parameters
    ----------
    coordination
        `shared`, `head` or `none` (`histill.methods.disentangled.coordination`).
    lambda_subspace
        Weight of the task loss of each subspace's own logits; without it the subspaces have no gradients of their own
        to coordinate.
    lambda_rebuild
        Weight of the expression rebuilt from each subspace's feature: what the feature is of, beside the outcome.
    lambda_gram, lambda_gene, lambda_map, lambda_variance
        Weights of the consistency terms (`losses.py`, `published_losses.py`); `lambda_gene` is of the expression told
        from the slide alone.
    """

    validates_together = False

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        *,
        coordination: str,
        lambda_subspace: float,
        lambda_orthogonal: float,
        lambda_rebuild: float,
        lambda_gram: float,
        lambda_gene: float,
        lambda_map: float,
        lambda_variance: float,
        **training: Any,
    ):
        super().__init__(model, labels, **training)
        self.coordination = coordination
        self.lambda_subspace, self.lambda_orthogonal = lambda_subspace, lambda_orthogonal
        self.lambda_rebuild = lambda_rebuild
        self.lambda_gram, self.lambda_gene, self.lambda_map = lambda_gram, lambda_gene, lambda_map
        self.lambda_variance = lambda_variance
        self.confidence = SmoothedConfidence(len(model.subspaces))
        self._alone: dict[str, Tensor] = {}
        self._seen: Tensor | None = None
        self._step: list[Tensor] = []  # scores of the batches of a step
        self._change: list[Tensor] = []

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        present = {level: mask.any(dim=-1) for level, mask in batch["mask"].items()}
        terms = {}
        if self.lambda_orthogonal:
            terms["orthogonal"] = self.lambda_orthogonal * orthogonality(output["features"])
        alone = self._subspaces_alone(output, batch, present)
        self._alone = {k: (loss * batch["weight"]).mean() for k, loss in alone.items()}
        if self.lambda_subspace:
            terms |= {f"{k}_alone": self.lambda_subspace * loss for k, loss in alone.items()}
        return {**terms, **self._consistency(output, batch, present)}

    def _subspaces_alone(self, output: dict, batch: dict, present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Task loss [B] of each subspace's own logits f_k W_k + b / K, and its probability of the true outcome."""
        label, event = batch["targets"]["label"], batch["targets"]["event"]
        count, losses, scores = len(self.model.subspaces), {}, []
        for index, k in enumerate(self.model.subspaces):
            own, said = 0.0, []
            for level, feature in output["features"][k].items():
                head = self.model.head[level]
                logits = F.linear(feature, head.weight.chunk(count, dim=1)[index], head.bias / count).float()
                predicted = probabilities(logits, self.survival)
                loss = task_loss(predicted, label, event, self.weights) * present[level]
                own = own + loss
                if self.coordination == "head" or not self.survival:
                    said.append(confidence(torch.softmax(logits, dim=-1), label))
                else:
                    said.append(torch.exp(-loss).mean())
            losses[k] = own
            scores.append(torch.stack(said).mean())
        self._seen = torch.stack(scores).detach()
        return losses

    def _consistency(self, output: dict, batch: dict, present: dict[str, Tensor]) -> dict[str, Tensor]:
        low, high = LEVELS
        terms: dict[str, Tensor] = {}
        for name, weight in (("told", self.lambda_gene), ("rebuilt", self.lambda_rebuild)):
            if weight:
                pairs = [(by_level, batch["genes"][k]) for k, by_level in output[name].items()]
                terms[name] = weight * sum(gene_consistency(*pair, present, LEVELS) for pair in pairs)
        if low not in output["logits"] or high not in output["logits"]:
            return terms
        if self.lambda_gram:
            both = present[low] & present[high]
            grams = [gram_consistency(by[low], by[high], both) for by in output["features"].values()]
            terms["gram"] = self.lambda_gram * torch.stack(grams).sum(dim=0)
        if self.lambda_map and "parents" in batch:
            maps = [map_consistency(by[low], by[high], batch["parents"]) for by in output["attention"].values()]
            terms["map"] = self.lambda_map * torch.stack(maps).sum(dim=0)
        if self.lambda_variance:
            both = present[low] & present[high]
            maps = [variance_consistency(by[low][both], by[high][both]) for by in output["maps"].values()]
            terms["variance"] = self.lambda_variance * sum(maps).expand(len(both))
        return terms

    def training_step(self, batch: dict, index: int) -> Tensor:
        total = super().training_step(batch, index)
        if self.coordination != "none" and len(self._alone) > 1:
            seen = _mean_over_ranks(self._seen)
            self._step.append(seen)
            scores = self.confidence.update(seen)
            self._change = self._resolve(scores) if self.coordination == "shared" else []
        self._alone = {}
        return total

    def _resolve(self, scores: Tensor) -> list[Tensor]:
        """What conflicts of the subspaces change in the gradients of the parameters they share.

        Gradients are those of all ranks' patients, so every rank makes the same change. Under mixed precision they are
        taken of the scaled loss, as those they are added to.
        """
        shared = self.model.shared_parameters()
        scale = self._loss_scale() * self.lambda_subspace
        flat = []
        for loss in self._alone.values():
            gradients = torch.autograd.grad(scale * loss, shared, retain_graph=True, allow_unused=True)
            parts = [torch.zeros_like(p) if g is None else g for p, g in zip(shared, gradients, strict=True)]
            flat.append(_mean_over_ranks(torch.cat([part.reshape(-1) for part in parts])))
        change = conflict(flat, scores)
        return [
            part.reshape(parameter.shape)
            for part, parameter in zip(change.split([p.numel() for p in shared]), shared, strict=True)
        ]

    def _loss_scale(self) -> float:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else scaler.get_scale()

    def on_after_backward(self) -> None:
        """Add the change; gradients of several batches add up to a step's, each at its share."""
        for change, parameter in zip(self._change, self.model.shared_parameters(), strict=bool(self._change)):
            if parameter.grad is not None:
                parameter.grad += change / self.trainer.accumulate_grad_batches
        self._change = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The published rule, on the step's whole gradient and by the scores of all its batches."""
        scores, self._step = self._step, []
        if self.coordination != "head" or not scores:
            return
        for head in self.model.head.values():
            if head.weight.grad is not None:
                head.weight.grad.copy_(coordinate_rows(head.weight.grad, torch.stack(scores).mean(dim=0)))


def _mean_over_ranks(value: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


class SubspaceStudentModule(StudentModule):
    """Distillation of logits and of both subspaces' features, with the student's prototypes held to the teacher's.

    Parameters
    ----------
    prototypes
        Level -> what the teacher's genes looked at, mean over training patients [K, d]: where the student's prototypes
        begin, and what they are drawn to.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        *,
        lambda_prototype: float,
        prototypes: dict[str, Tensor] | None = None,
        **options: Any,
    ):
        super().__init__(model, labels, **options)
        self.lambda_prototype, self.prototypes = lambda_prototype, prototypes or {}

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        terms = super().extra_losses(output, batch)
        if self.prototypes and self.lambda_prototype:
            pull = sum(
                ((self.model.aggregate[level].prototypes - goal.to(self.device)) ** 2).mean()
                for level, goal in self.prototypes.items()
                if level in output["logits"]
            )
            terms["prototype"] = self.lambda_prototype * pull.expand(len(batch["weight"]))
        return terms
