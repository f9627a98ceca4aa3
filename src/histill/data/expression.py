"""Expression of the two subspaces, normalised, corrected, chosen and scaled by the training patients of a fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from histill.data.expression_batches import ComBat
from histill.data.expression_counts import CountNormaliser, log_cpm
from histill.data.gene_selection import GeneSelection
from histill.data.scaling import VarianceFilter, WinsorizedScaler
from histill.errors import HistillError

GeneSets = dict[str, list[str]]


class ExpressionTransform:
    """Everything between an expression table and the teacher's inputs that is fitted.

    Counts are normalised across samples (optional), batches are corrected (optional), the most variable genes of each
    subspace are kept, genes are selected by class or list (optional), outliers are clipped and genes are standardised.
    Each step is a scikit-learn estimator, fitted on the training patients alone. The order of genes in a table does not
    matter, in fitting or later.

    Parameters
    ----------
    sets
        Subspace -> gene set -> symbols, in the order of their files.
    normalisation
        `tmm` or `upper_quartile` for tables of counts with all genes; None for tables on a log scale.
    batch
        Parameters of `ComBat`; None corrects nothing.
    top_variance
        Share of each subspace's genes kept, by variance among training patients.
    min_variance
        Genes below are left out.
    selection
        Parameters of `GeneSelection`, where there is one subspace; None selects nothing.
    clip
        Limit of the scaled values.

    Attributes
    ----------
    genes_
        Subspace -> genes in use, sorted: the order of the columns whatever the order of the input table.
    members_
        Subspace -> gene set -> positions in `genes_`; sets without a gene in use are left out.
    scale_
        What the training values were: `counts`, or the scale of the expression file; None where that was not known.
    notes_
        What fitting did to the training patients' values, in sentences: outliers clipped, genes left out.
    """

    def __init__(
        self,
        sets: dict[str, GeneSets],
        *,
        normalisation: str | None = None,
        batch: dict[str, Any] | None = None,
        top_variance: float = 1.0,
        min_variance: float = 0.0,
        selection: dict[str, Any] | None = None,
        clip: float = 5.0,
    ):
        if selection is not None and len(sets) > 1:
            raise ValueError(f"genes are selected in one subspace; there are {', '.join(sets)}")
        self.sets = sets
        self.normalisation = normalisation
        self.batch = batch
        self.top_variance = top_variance
        self.min_variance = min_variance
        self.selection = selection
        self.clip = clip

    def fit(
        self,
        matrix: np.ndarray,
        genes: list[str],
        *,
        batch: Sequence[str | None] | None = None,
        classes: Sequence[str | None] | None = None,
        scale: str | None = None,
    ) -> ExpressionTransform:
        """Fit on training samples [N, G] with their gene symbols, and their batches where these are corrected.

        `classes` are what genes are selected for: one a sample, None where it is not known. `scale` says what the
        values are; it is kept, so that values of another scale can be refused.
        """
        self.scale_ = scale
        known = set(genes)
        self.candidates_ = {
            subspace: sorted({gene for members in sets.values() for gene in members if gene in known})
            for subspace, sets in self.sets.items()
        }
        self.normaliser_ = self.combat_ = None
        values = _columns(matrix, genes, self._wanted())
        if self.normalisation:
            self.counted_ = sorted(genes)
            self.normaliser_ = CountNormaliser(self.normalisation)
            values = log_cpm(values, self.normaliser_.fit_library(_columns(matrix, genes, self.counted_)))
        if self.batch is not None:
            self.combat_ = ComBat(**self.batch)
            values = self.combat_.fit_transform(values, batch=batch)
        self.pipelines_, self.genes_, self.members_, self.notes_ = {}, {}, {}, []
        for subspace, sets in self.sets.items():
            own = values[:, self._positions(subspace)]
            self.pipelines_[subspace] = self._fit_pipeline(own, self.candidates_[subspace], classes)
            self._keep(subspace, sets)
            self.notes_ += self._note(subspace, own)
        return self

    def transform(
        self, matrix: np.ndarray, genes: list[str], *, batch: Sequence[str | None] | None = None
    ) -> dict[str, np.ndarray]:
        """Subspace -> scaled expression [N, n_k] float32. A gene that is missing gets the training mean, 0."""
        corrected = self._corrected(matrix, genes, batch)
        result = {}
        for subspace, pipeline in self.pipelines_.items():
            values = corrected[:, self._positions(subspace)]
            scaled = pipeline.transform(values)
            scaled[~np.isfinite(pipeline[:-1].transform(values))] = 0.0
            result[subspace] = scaled
        return result

    def missing(self, genes: list[str]) -> dict[str, list[str]]:
        """Genes in use that a table does not have, by subspace; they are imputed with the training mean."""
        have = set(genes)
        return {subspace: [gene for gene in wanted if gene not in have] for subspace, wanted in self.genes_.items()}

    def imputed(self, matrix: np.ndarray, genes: list[str]) -> np.ndarray:
        """How many genes in use each sample [N, G] has no value of: int [N]."""
        used = sorted({gene for own in self.genes_.values() for gene in own})
        return (~np.isfinite(_columns(matrix, genes, used))).sum(axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """Fitted arrays; names and memberships travel as JSON text in a byte array."""
        meta = {
            "scale": self.scale_,
            "candidates": self.candidates_,
            "genes": self.genes_,
            "members": self.members_,
            "counted": self.counted_ if self.normaliser_ else None,
            "normalisation": self.normalisation,
            "batch": self.batch,
            "top_variance": self.top_variance,
            "min_variance": self.min_variance,
            "selection": self.selection,
            "clip": self.clip,
        }
        steps = {
            f"{subspace}.{name}": step
            for subspace, pipeline in self.pipelines_.items()
            for name, step in pipeline.steps
        }
        steps |= {"normaliser": self.normaliser_} if self.normaliser_ else {}
        steps |= {"combat": self.combat_} if self.combat_ else {}
        arrays = {f"{prefix}.{name}": value for prefix, step in steps.items() for name, value in step.state().items()}
        return {"meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8).copy(), **arrays}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> ExpressionTransform:
        """The transform whose `state` this is; it cannot be fitted again, as it has no gene sets.

        Raises
        ------
        HistillError
            When it does not say which scale it was fitted on.
        """

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

        meta = json.loads(bytes(state["meta"]))
        if "scale" not in meta:
            raise HistillError(
                "the model does not say which scale of expression it was trained on", mend="train the model again"
            )
        options = ("normalisation", "batch", "top_variance", "min_variance", "clip")
        transform = cls({}, **{name: meta[name] for name in options}, selection=meta.get("selection"))
        transform.candidates_, transform.genes_, transform.members_ = meta["candidates"], meta["genes"], meta["members"]
        transform.scale_ = meta["scale"]
        transform.counted_, transform.notes_ = meta["counted"], []
        transform.normaliser_ = CountNormaliser.from_state(part("normaliser.")) if meta["counted"] else None
        transform.combat_ = ComBat.from_state(part("combat.")) if meta["batch"] is not None else None
        selection = {} if transform.selection is None else {"selection": GeneSelection}
        kinds = {"filter": VarianceFilter, **selection, "scaler": WinsorizedScaler}
        transform.pipelines_ = {
            subspace: Pipeline([(name, kind.from_state(part(f"{subspace}.{name}."))) for name, kind in kinds.items()])
            for subspace in meta["genes"]
        }
        return transform

    def _corrected(self, matrix: np.ndarray, genes: list[str], batch: Sequence[str | None] | None) -> np.ndarray:
        """Candidate genes on a log scale, corrected, float64 [N, candidates]; NaN where the table has no such gene."""
        values = _columns(matrix, genes, self._wanted())
        if self.normaliser_:
            values = log_cpm(values, self.normaliser_.library(_columns(matrix, genes, self.counted_)))
        return self.combat_.transform(values, batch=batch) if self.combat_ else values

    def _fit_pipeline(self, values: np.ndarray, genes: list[str], classes: Sequence[str | None] | None) -> Pipeline:
        """The fitted steps of one subspace, whose samples are `values` [N, candidates]."""
        variance = VarianceFilter(self.top_variance, self.min_variance)
        steps = [("filter", variance)]
        values = variance.fit_transform(values)
        if self.selection is not None:
            selection = GeneSelection(**self.selection)
            values = selection.fit(values, classes, genes=variance.get_feature_names_out(genes)).transform(values)
            steps.append(("selection", selection))
        return Pipeline([*steps, ("scaler", WinsorizedScaler(self.clip).fit(values))])

    def _wanted(self) -> list[str]:
        return sorted({gene for genes in self.candidates_.values() for gene in genes})

    def _positions(self, subspace: str) -> list[int]:
        position = {gene: index for index, gene in enumerate(self._wanted())}
        return [position[gene] for gene in self.candidates_[subspace]]

    def _keep(self, subspace: str, sets: GeneSets) -> None:
        """Note which genes of a subspace are in use, and where those of each set stand."""
        kept = self.pipelines_[subspace][:-1].get_feature_names_out(self.candidates_[subspace]).tolist()
        position = {gene: index for index, gene in enumerate(kept)}
        self.genes_[subspace] = kept
        self.members_[subspace] = {
            name: sorted(position[gene] for gene in set(members) if gene in position)
            for name, members in sets.items()
            if any(gene in position for gene in members)
        }

    def _note(self, subspace: str, values: np.ndarray) -> list[str]:
        notes = []
        pipeline, kept = self.pipelines_[subspace], self.genes_[subspace]
        left_out = values.shape[1] - int(pipeline["filter"].support_.sum())
        if left_out:
            notes.append(f"{left_out} of {values.shape[1]} {subspace} genes are left out for low variance")
        if self.selection is not None:
            notes += [f"selection of {subspace} genes: {note}" for note in pipeline["selection"].notes_]
        used = pipeline[:-1].transform(values)
        beyond = pipeline["scaler"].outliers(used)
        if beyond.any():
            row, column = np.unravel_index(np.where(beyond, np.abs(used), 0.0).argmax(), used.shape)
            notes.append(
                f"{int(beyond.sum())} training values of {int(beyond.any(axis=0).sum())} {subspace} genes "
                f"are outliers and are clipped: more than {self.clip:g} standard deviations from the mean, the largest "
                f"{used[row, column]:g} of {kept[column]}"
            )
        return notes


def _columns(matrix: np.ndarray, genes: list[str], wanted: list[str]) -> np.ndarray:
    """Columns of a table [N, G] in the order asked for, float64 [N, wanted]; NaN where the table has no such gene."""
    column = {gene: index for index, gene in enumerate(genes)}
    if all(gene in column for gene in wanted):
        return matrix[:, [column[gene] for gene in wanted]].astype(np.float64)
    values = np.full((len(matrix), len(wanted)), np.nan)
    present = [index for index, gene in enumerate(wanted) if gene in column]
    values[:, present] = matrix[:, [column[wanted[index]] for index in present]]
    return values
