"""Training of the baselines that are networks: on the labels alone, with the budget of `training.model`."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from histill.data.fold import fit_expression, fit_features
from histill.errors import HistillError
from histill.methods.baselines.snn import RNA
from histill.methods.baselines.training import TRANSCRIPTOME
from histill.methods.checkpoint import Checkpoint, build_network
from histill.methods.fold_run import FoldRun
from histill.methods.mirror.training import at_level
from histill.methods.module import SupervisedModule
from histill.subspaces import GENES

FAMILIES = "families"  # gene groups of MCAT, shipped


class GenesModule(SupervisedModule):
    """Trains a network that reads no tiles: what says whether a patient has some, says it of the transcriptome."""

    def inputs(self, batch: dict) -> dict:
        weight = batch["weight"]
        return {**super().inputs(batch), "mask": {RNA: torch.ones_like(weight, dtype=torch.bool).unsqueeze(1)}}


def abmil(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """Attention pooling."""
    return _train(run, run.config["methods"]["abmil"])


def meanpool(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """Mean pooling: of all tiles in training too, since they are read once."""
    return _train(run, run.config["methods"]["meanpool"], pooled=True)


def transmil(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """TransMIL at every magnification, or at the one that is asked for."""
    options = dict(run.config["methods"]["transmil"])
    asked, levels = options.pop("magnification"), run.cohort.bags.levels
    if asked is None:
        return _train(run, options)
    if asked not in levels:
        raise HistillError(
            f"methods.transmil.magnification: no store has '{asked}'",
            mend=f"set it to one of {', '.join(levels)}, or to null for all of them",
        )
    run = at_level(run, asked)
    run.check()
    return _train(run, options)


def snn(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """A self-normalising network of all genes."""
    sets = {TRANSCRIPTOME: run.cohort.expression.genes}
    return _train(run, run.config["methods"]["snn"], sets=sets, module=GenesModule)


def mcat(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    """Genomic-guided co-attention over the tiles."""
    from histill.transcriptome.gene_sets import current, shipped

    return _train(run, run.config["methods"]["mcat"], sets=current(shipped(FAMILIES)))


def _train(
    run: FoldRun,
    options: dict[str, Any],
    *,
    sets: dict[str, list[str]] | None = None,
    module: type[SupervisedModule] = SupervisedModule,
    pooled: bool = False,
) -> tuple[Checkpoint, dict[str, Any]]:
    """Fit a baseline's network.

    Parameters
    ----------
    options
        Of the network's constructor.
    sets
        Gene sets of what it reads of the transcriptome; None: nothing.
    pooled
        The mean of all tiles stands for them.
    """
    lightning.seed_everything(run.stream, verbose=False)
    labels, arguments = run.labels(), {}
    scalers, expression = {}, None
    if "slide" in run.stage.reads:
        scalers = fit_features(run.cohort, run.training, seed=run.seed, log=run.log)
        arguments["features"] = {level: len(scaler.mean_) for level, scaler in scalers.items()}
    if sets is not None:
        expression = fit_expression(run.cohort, run.training, {GENES: sets}, run.config)
        if scalers:
            arguments["groups"] = expression.members_[GENES]
        else:
            arguments["genes"] = len(expression.genes_[GENES])
    arguments |= {"outputs": labels.outputs, **options}
    network = module(build_network(run.kind, arguments), labels, **run.optimiser)
    known: dict[str, Any] = {"labels": labels, "expression": expression, "pooled": pooled}
    training = run.bags(run.training, scalers, limit=None if pooled else run.max_tiles, **known)
    validation = run.bags(run.validation, scalers, **known)
    weights, figures = run.fit(network, training, validation)
    figures = {"patients": len(run.training), **figures}
    return Checkpoint(run.kind, labels, arguments, weights, scalers, expression, {}), figures
