"""LightningModules of the teacher and of the distilled student."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from histill.data.fold import Labels
from histill.methods.disentangled.losses import distil_features, distil_logits, orthogonality
from histill.methods.module import SupervisedModule
from histill.subspaces import SUBSPACES


class TeacherModule(SupervisedModule):
    """Task loss and the orthogonality of the two subspaces."""

    def __init__(self, model: nn.Module, labels: Labels, *, lambda_orthogonal: float, **training: Any):
        super().__init__(model, labels, **training)
        self.lambda_orthogonal = lambda_orthogonal

    def losses(self, batch: dict) -> dict[str, Tensor]:
        genes = {k: batch["targets"][f"genes:{k}"] for k in SUBSPACES}
        return super().losses({**batch, "genes": genes})

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        return {"orthogonal": self.lambda_orthogonal * orthogonality(output)}


class StudentModule(SupervisedModule):
    """Task loss and subspace distillation from a frozen teacher's stored outputs.

    Targets of a patient: `taught` (1 where the teacher saw slide and genes, else 0), `teacher:logits:<level>`,
    `teacher:<subspace>:<level>`. The weights do not depend on which terms are on.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        *,
        temperature: float,
        lambda_logit: float,
        lambda_feature: float,
        **training: Any,
    ):
        super().__init__(model, labels, **training)
        self.temperature = temperature
        self.lambda_logit, self.lambda_feature = lambda_logit, lambda_feature

    def extra_losses(self, output: dict, batch: dict) -> dict[str, Tensor]:
        targets = batch["targets"]
        logit = feature = 0.0
        for level, logits in output["logits"].items():
            taught = targets["taught"] * batch["mask"][level].any(dim=-1)
            logit = logit + taught * distil_logits(
                logits, targets[f"teacher:logits:{level}"], temperature=self.temperature, survival=self.survival
            )
            for k in SUBSPACES:
                feature = feature + taught * distil_features(output[k][level], targets[f"teacher:{k}:{level}"]) / 2
        return {"distil_logit": self.lambda_logit * logit, "distil_feature": self.lambda_feature * feature}
