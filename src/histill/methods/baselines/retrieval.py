"""Retrieval average: a slide is judged by the real expression of the training patients whose slides are most alike.

No graph is learned and nothing is generated: what any method that borrows genes from neighbours must be better than.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from histill.data.fold import Labels
from histill.methods.baselines.linear import Block, LinearModel

_ARRAYS = ("slides", "expression", "cases")


@dataclass
class RetrievalModel:
    """A linear model of RNA, and the training patients it may borrow from.

    Attributes
    ----------
    judge
        Of RNA alone, fitted on the patients' own expression.
    block
        Principal components of mean-pooled slides.
    slides
        Scores of the training patients' slides [N, K], rows of length 1.
    expression
        Their genes as `judge` reads them [N, G].
    cases
        Their codes int64 [N]: a training patient does not borrow from itself.
    neighbours
        How many lend.
    """

    judge: LinearModel
    block: Block
    slides: np.ndarray
    expression: np.ndarray
    cases: np.ndarray
    neighbours: int

    @classmethod
    def fit(
        cls,
        inputs: dict[str, np.ndarray],
        labels: Labels,
        targets: list,
        options: dict[str, Any],
        *,
        cases: np.ndarray,
        neighbours: int,
    ) -> RetrievalModel:
        """Fit on training patients with slide and RNA; arguments as `LinearModel.fit`."""
        judge = LinearModel.fit({"rna": inputs["rna"]}, labels, targets, options)
        block = Block.fit(inputs["slide"], options["components"])
        return cls(judge, block, _unit(block.transform(inputs["slide"])), inputs["rna"], cases, neighbours)

    @property
    def alpha(self) -> float:
        return self.judge.alpha

    def predict(self, inputs: dict[str, np.ndarray], *, cases: np.ndarray) -> np.ndarray:
        """Log hazard ratios [N, 1], or class probabilities [N, C], of slides; `cases` are the patients' codes [N]."""
        return self.judge.predict(self._borrowed(inputs, cases))

    def survival(self, inputs: dict[str, np.ndarray], *, cases: np.ndarray) -> np.ndarray:
        """Survival [N, E] at the ends of the intervals (`LinearModel.survival`)."""
        return self.judge.survival(self._borrowed(inputs, cases))

    def _borrowed(self, inputs: dict[str, np.ndarray], cases: np.ndarray) -> dict[str, np.ndarray]:
        """Mean expression of the patients whose slides are most alike."""
        similarity = _unit(self.block.transform(inputs["slide"])) @ self.slides.T
        similarity[cases[:, None] == self.cases[None, :]] = -np.inf
        # Of slides that are equally alike those of the first codes, whatever the order of the cohort.
        order = np.lexsort((np.broadcast_to(self.cases, similarity.shape), -similarity), axis=1)
        nearest = order[:, : min(self.neighbours, len(self.cases) - 1)]
        return {"rna": self.expression[nearest].mean(axis=1)}

    def state(self) -> dict[str, np.ndarray]:
        return {
            **{f"judge.{name}": value for name, value in self.judge.state().items()},
            **{f"block.{name}": value for name, value in self.block.state().items()},
            **{name: getattr(self, name) for name in _ARRAYS},
            "neighbours": np.array(self.neighbours),
        }

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> RetrievalModel:
        def part(prefix: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        block = Block.from_state(part("block."))
        own = {name: state[name] for name in _ARRAYS}
        return cls(LinearModel.from_state(part("judge.")), block, **own, neighbours=int(state["neighbours"]))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
