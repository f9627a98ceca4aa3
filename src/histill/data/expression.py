"""Expression of the two subspaces, scaled by the training patients of a fold."""

from __future__ import annotations

import json

import numpy as np

from histill.data.scaling import WinsorizedScaler


class ExpressionTransform:
    """Choose the genes of each subspace, scale them, and tell which were missing.

    Parameters
    ----------
    sets
        Subspace -> gene set -> symbols, in the order of their files.
    top_variance
        Share of each subspace's genes kept, by variance among training patients.
    clip
        Limit of the scaled values.

    Attributes
    ----------
    genes_
        Subspace -> genes in use, sorted: the order of the columns whatever the order of the input table.
    members_
        Subspace -> gene set -> positions in `genes_`; sets without a gene in use are left out.
    """

    def __init__(self, sets: dict[str, dict[str, list[str]]], *, top_variance: float = 1.0, clip: float = 5.0):
        self.sets = sets
        self.top_variance = top_variance
        self.clip = clip

    def fit(self, matrix: np.ndarray, genes: list[str]) -> ExpressionTransform:
        """Fit on training samples [N, G] with their gene symbols."""
        column = {gene: index for index, gene in enumerate(genes)}
        self.genes_, self.members_, self.scalers_ = {}, {}, {}
        for subspace, sets in self.sets.items():
            wanted = sorted({gene for members in sets.values() for gene in members if gene in column})
            values = matrix[:, [column[gene] for gene in wanted]].astype(np.float64)
            kept = self._most_variable(values, wanted)
            position = {gene: index for index, gene in enumerate(kept)}
            self.genes_[subspace] = kept
            self.members_[subspace] = {
                name: sorted(position[gene] for gene in set(members) if gene in position)
                for name, members in sets.items()
                if any(gene in position for gene in members)
            }
            self.scalers_[subspace] = WinsorizedScaler(self.clip).fit(matrix[:, [column[gene] for gene in kept]])
        return self

    def _most_variable(self, values: np.ndarray, genes: list[str]) -> list[str]:
        low, high = np.nanquantile(values, WinsorizedScaler.QUANTILES, axis=0)
        variance = np.nanvar(np.clip(values, low, high), axis=0)
        count = max(1, round(self.top_variance * len(genes)))
        order = np.argsort(-variance, kind="stable")[:count]
        return [genes[index] for index in sorted(order)]

    def transform(self, matrix: np.ndarray, genes: list[str]) -> dict[str, np.ndarray]:
        """Subspace -> scaled expression [N, n_k] float32. A gene that is missing gets the training mean, 0."""
        column = {gene: index for index, gene in enumerate(genes)}
        result = {}
        for subspace, wanted in self.genes_.items():
            values = np.full((len(matrix), len(wanted)), np.nan)
            present = [index for index, gene in enumerate(wanted) if gene in column]
            values[:, present] = matrix[:, [column[wanted[index]] for index in present]]
            scaled = self.scalers_[subspace].transform(values)
            scaled[~np.isfinite(values)] = 0.0
            result[subspace] = scaled
        return result

    def missing(self, genes: list[str]) -> dict[str, list[str]]:
        """Genes in use that a table does not have, by subspace."""
        have = set(genes)
        return {subspace: [gene for gene in wanted if gene not in have] for subspace, wanted in self.genes_.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Fitted arrays; names and memberships travel as JSON text in a byte array."""
        meta = {"genes": self.genes_, "members": self.members_, "top_variance": self.top_variance, "clip": self.clip}
        arrays = {"meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8).copy()}
        for subspace, scaler in self.scalers_.items():
            arrays.update({f"{subspace}.{name}": value for name, value in scaler.state().items()})
        return arrays

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> ExpressionTransform:
        meta = json.loads(bytes(state["meta"]).decode())
        transform = cls({}, top_variance=meta["top_variance"], clip=meta["clip"])
        transform.genes_, transform.members_ = meta["genes"], meta["members"]
        transform.scalers_ = {
            subspace: WinsorizedScaler.from_state(
                {name.removeprefix(f"{subspace}."): v for name, v in state.items() if name.startswith(f"{subspace}.")}
            )
            for subspace in meta["genes"]
        }
        return transform
