"""Acceptance test 8 of the specification: what the genes of training cases know is found again from slides alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from histill.methods.msrl.encoders import SlideEncoder
from histill.methods.msrl.model import MSRL
from histill.methods.msrl.module import MSRLModule

CLUSTERS, GENES, VIEW, SLIDE = 8, 30, 20, 60
TRAINING, TEST, SEEDS, BATCH, DIM = 150, 600, 4, 64, 32
LEARNING_RATE = 2e-3


def cohort(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Slides [N, 60], genes [N, 30] and classes [N].

    Genes are the cluster's code and some noise. A third of what the slide shows is a weak view of the cluster, turned
    into the rest, which varies more. Risk follows from the code; training cases tell its side with much noise.
    """
    patients, world = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)
    code, view = torch.randn(CLUSTERS, GENES, generator=world), torch.randn(CLUSTERS, VIEW, generator=world)
    turn = torch.linalg.qr(torch.randn(SLIDE, SLIDE, generator=world)).Q
    number = TRAINING + TEST
    cluster = torch.randint(0, CLUSTERS, (number,), generator=patients)
    genes = code[cluster] + 0.5 * torch.randn(number, GENES, generator=patients)
    seen = view[cluster] + 0.7 * torch.randn(number, VIEW, generator=patients)
    slide = torch.cat([seen, 2 * torch.randn(number, SLIDE - VIEW, generator=patients)], dim=1) @ turn
    risk = genes @ torch.randn(GENES, generator=world)
    risk = (risk - risk.mean()) / risk.std()
    label = torch.rand(number, generator=patients) < torch.sigmoid(risk)
    label[TRAINING:] = risk[TRAINING:] > risk.median()
    return _standard(slide), _standard(genes), label.long()


def _standard(rows: Tensor) -> Tensor:
    return (rows - rows[:TRAINING].mean(dim=0)) / rows[:TRAINING].std(dim=0)


def permuted(genes: Tensor) -> Tensor:
    """Genes of the training cases given to one another."""
    return torch.cat([genes[:TRAINING][torch.randperm(TRAINING)], genes[TRAINING:]])


def one_modality(rows: Tensor, label: Tensor) -> float:
    """AUC on the test cases of an encoder and a linear head, trained on the labels."""
    encoder, head = SlideEncoder({"slide": rows.shape[1]}, DIM, dropout=0.1), nn.Linear(DIM, 2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=LEARNING_RATE, weight_decay=1e-3)
    for _ in range(15):
        for own in torch.randperm(TRAINING).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(encoder.project(rows[own]).relu()), label[own]).backward()
            optimizer.step()
    with torch.no_grad():
        return _auc(head(encoder.eval().project(rows[TRAINING:]).relu()), label)


def msrl(slide: Tensor, genes: Tensor, label: Tensor) -> float:
    """AUC on the test cases, of their slides alone."""
    groups = {"a": list(range(GENES // 2)), "b": list(range(GENES // 2, GENES))}
    sizes = {"dim": DIM, "neighbours": 10, "hidden": DIM, "dropout": 0.1}
    model = MSRL({"slide": SLIDE}, 2, groups, TRAINING, **sizes)
    labels = SimpleNamespace(task=SimpleNamespace(type="classification"), outputs=2, weights=np.ones(2))
    module = MSRLModule(model, labels, train_genes=True, learning_rate=LEARNING_RATE, weight_decay=1e-3)
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=1e-3
    )
    module.fill([_batch(slide, genes, label, torch.arange(TRAINING))])
    for _ in range(25):
        for own in torch.randperm(TRAINING).split(BATCH):
            batch = _batch(slide, genes, label, own)
            optimizer.zero_grad()
            sum(term.mean() for term in module.losses(batch).values()).backward()
            optimizer.step()
            module.follow()
            module.on_train_batch_end(None, batch, 0)
    test = _batch(slide, genes, label, torch.arange(TRAINING, TRAINING + TEST))
    with torch.no_grad():
        return _auc(module.eval().model(test)["logits"]["case"], label)


def _batch(slide: Tensor, genes: Tensor, label: Tensor, rows: Tensor) -> dict:
    targets = {"label": label[rows], "event": torch.zeros_like(rows), "case": rows, "cohort": torch.zeros_like(rows)}
    return {
        "tokens": {"slide": slide[rows, None]},
        "mask": {"slide": torch.ones(len(rows), 1, dtype=torch.bool)},
        "targets": {**targets, "paired": torch.ones(len(rows)), "genes:genes": genes[rows]},
    }


def _auc(logits: Tensor, label: Tensor) -> float:
    return roc_auc_score(label[TRAINING:], logits[:, 1] - logits[:, 0])


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    """AUC of each model, mean over seeds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices are small, and waiting threads cost more than they compute
    found: dict[str, list[float]] = {"slide": [], "msrl": [], "genes": [], "permuted": []}
    for seed in range(SEEDS):
        slide, genes, label = cohort(seed)
        torch.manual_seed(seed)
        found["slide"].append(one_modality(slide, label))
        found["genes"].append(one_modality(genes, label))
        found["msrl"].append(msrl(slide, genes, label))
        found["permuted"].append(msrl(slide, permuted(genes), label))
    torch.set_num_threads(threads)
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_borrowed_genes_lie_between_the_slide_alone_and_the_genes(scores):
    assert scores["slide"] + 0.04 < scores["msrl"] < scores["genes"] - 0.04, scores


def test_genes_of_other_cases_are_worth_nothing(scores):
    assert scores["permuted"] < scores["slide"] + 0.02, scores
