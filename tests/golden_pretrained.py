"""What the networks of MIRROR and MSRL, and retrieval, give on a tiny fixed input (see `golden_models`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.golden_models import flat
from tests.golden_stages import SURVIVAL, rounded, waves

FEATURES = {"20x": 6}
GENES = 5
MIRROR = {
    "features": FEATURES,
    "genes": GENES,
    "dim": 8,
    "heads": 2,
    "landmarks": 3,
    "rna_heads": 2,
    "latent": 3,
    "hidden": [4],
    "prototypes": 4,
}
GROUPS = {"a": [0, 1, 2], "b": [2, 4]}
CASES = {"dim": 8, "neighbours": 2, "hidden": 6}


def _weigh(network: torch.nn.Module) -> torch.nn.Module:
    """The network in evaluation mode, with weights that follow from their order."""
    with torch.no_grad():
        for index, weight in enumerate(network.parameters()):
            own = waves(1, weight.numel(), index).reshape(weight.shape)
            weight.copy_(0.3 * torch.from_numpy(own).float())
    return network.eval()


def _batch() -> dict[str, Any]:
    """Three patients; of the last one two tiles."""
    mask = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    return {
        "tokens": {"20x": torch.from_numpy(waves(12, 6, 6)).float().reshape(3, 4, 6)},
        "mask": {"20x": mask},
        "cells": {"20x": torch.arange(36).reshape(3, 4, 3) % 3},
        "genes": {"genes": torch.from_numpy(waves(3, GENES, 2)).float()},
        "weight": torch.ones(3),
    }


def _said(output: dict[str, Any], *names: str) -> dict[str, list]:
    values = {name: output[name] for name in names if name in output}
    return {name: rounded(value.detach().float().ravel()) for name, value in flat(values)}


def mirror() -> dict[str, dict[str, Any]]:
    """Encoders, losses of pre-training and monitors; probes; the student."""
    from histill.methods.checkpoint import build_network
    from histill.methods.mirror.module import PretrainModule

    batch, found, heads = _batch(), {}, _heads()
    network = _weigh(build_network("mirror", MIRROR))
    module = PretrainModule(network, learning_rate=1e-3, weight_decay=0.0).eval()
    with torch.no_grad():
        seen = module.see({**batch, "targets": {"genes:genes": batch["genes"]["genes"]}})
        losses = {name: round(float(value), 6) for name, value in module.losses(seen).items()}
        found["mirror/pretrain"] = {"losses": losses, **_said(network(batch), "encoded", "aligned")}
        shared = {"outputs": 3, "pretrained": MIRROR}
        for stage, reads in (("slide", ["slide"]), ("rna", ["rna"]), ("fused", ["slide", "rna"])):
            probe = _weigh(build_network(f"mirror-{stage}", {**shared, "reads": reads, "shots": 1}))
            found[f"mirror/{stage}"] = _said(probe(batch), "logits", "few_shot", "aligned") | {"head": heads}
        found["mirror/student"] = _said(_weigh(build_network("mirror-student", shared))(batch), "logits", "features")
    return found


def _heads() -> dict[str, Any]:
    """Both linear heads on fixed embeddings."""
    from histill.data.fold import Labels
    from histill.methods.linear_head import Examples, published_head, ridge_head

    x = torch.from_numpy(waves(24, 3, 1))
    label, event = torch.arange(24) % 3, (torch.arange(24) % 4 > 0).long()
    examples = Examples(x, label, event, np.arange(24), torch.ones(24, dtype=torch.float64))
    labels = Labels(SURVIVAL, edges=np.array([1.0, 2.0]))
    weight, _, alpha = ridge_head(examples, labels, [0.1, 1.0], seed=0)
    published, _ = published_head(examples, labels, seed=0)
    return {"alpha": alpha, "ridge": rounded(weight.ravel()), "published": rounded(published.ravel())}


def msrl() -> dict[str, dict[str, Any]]:
    """The graphs of pre-training; what is borrowed from a buffer of six cases, with genes and without."""
    from histill.methods.checkpoint import build_network

    batch, found = _batch(), {}
    pretrainer = _weigh(
        build_network("msrl-pretrain", {"features": FEATURES, "groups": GROUPS, **CASES, "projection": 4})
    )
    with torch.no_grad():
        views = pretrainer(*pretrainer.encode(batch))
        found["msrl/pretrain"] = {name: rounded(value.ravel()) for name, value in views.graphs.items()}
        own = _weigh(
            build_network("msrl-pretrain-slide", {"features": FEATURES, "groups": {}, **CASES, "projection": 4})
        )
        views = own(*own.encode(batch))
        found["msrl/pretrain_slide"] = {name: rounded(value.ravel()) for name, value in views.graphs.items()}
        for stage, kind in (("slide", "msrl-slide"), ("student", "msrl"), ("both", "msrl-both")):
            arguments = {"features": FEATURES, "outputs": 3, "groups": GROUPS, "capacity": 6, **CASES}
            network = _weigh(build_network(kind, {**arguments, "genes": stage != "slide"}))
            width = network.buffer.values.shape[1]
            values = torch.from_numpy(waves(6, width, 4)).float()
            network.buffer.write(torch.arange(6), values, torch.zeros(6, dtype=torch.int64))
            own = batch if stage == "both" else {name: value for name, value in batch.items() if name != "genes"}
            found[f"msrl/{stage}"] = _said(network(own), "logits", "neighbours")
    return found


def retrieval() -> dict[str, dict[str, Any]]:
    """Risks of six slides by the genes of others."""
    from histill.data.fold import Labels
    from histill.methods.baselines.retrieval import RetrievalModel

    factor = waves(40, 2, 0.4)
    inputs = {
        name: factor @ waves(2, 7, phase) + 0.5 * waves(40, 7, phase + 1) for phase, name in enumerate(("slide", "rna"))
    }
    outcomes = [(round(float(np.exp(1 - row.sum())), 1), int(index % 4 > 0)) for index, row in enumerate(factor)]
    options = {"components": 3, "alphas": [0.1]}
    model = RetrievalModel.fit(inputs, Labels(SURVIVAL), outcomes, options, cases=np.arange(40), neighbours=4)
    risks = model.predict({"slide": inputs["slide"][:6]}, cases=np.arange(6))
    return {"retrieval/train": {"risk": rounded(risks.ravel())}}
