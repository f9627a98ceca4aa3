"""Gradient coordination: closed forms, and the same result however a step is computed."""

from __future__ import annotations

import socket
import subprocess
import sys

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from histill.cohort.tasks import Task
from histill.data.fold import Labels
from histill.methods.disentangled.coordination import SmoothedConfidence, confidence, conflict, coordinate_rows
from histill.methods.disentangled.model import Teacher
from histill.methods.disentangled.module import TeacherModule

SCORES = torch.tensor([0.3, 0.7])  # the first subspace is the less confident


def rows(seed=0):
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))


def cosine(gradient):
    return torch.nn.functional.cosine_similarity(*gradient.chunk(2, dim=1), dim=1)


@pytest.mark.parametrize("weak", [0, 1])
def test_published_rule_reflects(weak):
    """Cosine changes its sign against the strong half, length becomes that of the perpendicular part (§2.6, 3)."""
    before = rows()
    after = coordinate_rows(before, SCORES if weak == 0 else SCORES.flip(0))
    negative = cosine(before) < 0
    assert 0 < negative.sum() < len(before)
    torch.testing.assert_close(cosine(after)[negative], -cosine(before)[negative])
    assert torch.equal(after[~negative], before[~negative])
    own, other = before.chunk(2, dim=1)[weak], before.chunk(2, dim=1)[1 - weak]
    across = own - (own * other).sum(1, keepdim=True) / (other * other).sum(1, keepdim=True) * other
    mended = after.chunk(2, dim=1)
    torch.testing.assert_close(mended[weak].norm(dim=1)[negative], across.norm(dim=1)[negative])
    assert torch.equal(mended[1 - weak], other)


def test_single_projection_leaves_no_cosine():
    before = rows()
    after = coordinate_rows(before, SCORES, single=True)
    negative = cosine(before) < 0
    torch.testing.assert_close(cosine(after)[negative], torch.zeros(int(negative.sum())), atol=1e-6, rtol=0)


def test_equal_scores_and_zero_gradients_change_nothing():
    assert torch.equal(coordinate_rows(rows(), torch.ones(2)), rows())
    zero = rows()
    zero[:, :6] = 0
    assert torch.equal(coordinate_rows(zero, SCORES), zero)
    zero = rows()
    zero[:, 6:] = 0
    assert torch.equal(coordinate_rows(zero, SCORES), zero)
    first, second = rows()[0], rows()[1]
    assert not conflict([first, -first], torch.ones(2)).any()
    assert not conflict([torch.zeros(12), second], SCORES).any()
    assert not conflict([first, torch.zeros(12)], SCORES).any()


def test_the_less_confident_gradient_is_projected_off_the_other():
    first, second = rows()[0], rows()[1]
    second = second if first @ second < 0 else -second
    change = conflict([first, second], SCORES)
    torch.testing.assert_close((first + change) @ second, torch.tensor(0.0), atol=1e-5, rtol=0)
    assert not conflict([first, -second], SCORES).any()
    # The other way round the second gives way.
    change = conflict([first, second], SCORES.flip(0))
    torch.testing.assert_close((second + change) @ first, torch.tensor(0.0), atol=1e-5, rtol=0)


def test_opposite_gradients_leave_the_confident_one():
    first = rows()[0]
    torch.testing.assert_close(first - first + conflict([first, -first], SCORES), -first)


def test_confidence_is_smoothed_without_bias():
    torch.testing.assert_close(
        confidence(torch.tensor([[0.2, 0.8], [0.6, 0.4]]), torch.tensor([1, 0])), torch.tensor(0.7)
    )
    smooth = SmoothedConfidence(2)
    torch.testing.assert_close(smooth.update(SCORES), SCORES)
    torch.testing.assert_close(smooth.update(SCORES), SCORES)
    assert smooth.update(torch.zeros(2))[1] < SCORES[1]
    assert set(smooth.state_dict()) == {"mean", "steps"}


# --- in training ---------------------------------------------------------------------------------------------------


def module(coordination="shared", **options):
    torch.manual_seed(0)
    model = Teacher(
        {"10x": 5},
        {"tumor": 4, "microenvironment": 4},
        {k: {"a": [0, 1, 2, 3]} for k in ("tumor", "microenvironment")},
        2,
        dim=8,
        heads=2,
        dropout=0.0,
    )
    weights = {
        "lambda_orthogonal": 0.0,
        "lambda_rebuild": 0.0,
        "lambda_gram": 0.0,
        "lambda_gene": 0.0,
        "lambda_map": 0.0,
        "lambda_variance": 0.0,
    }
    labels = Labels(Task("dx", "classification", ("dx",)), ["a", "b"], weights=torch.ones(2).numpy())
    return TeacherModule(
        model,
        labels,
        coordination=coordination,
        lambda_subspace=1.0,
        learning_rate=0.1,
        weight_decay=0.0,
        **weights,
        **options,
    )


def patients(count):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "tokens": {"10x": torch.randn(6, 5, generator=generator)},
            "mask": {"10x": torch.ones(6, dtype=torch.bool)},
            "cells": {"10x": torch.zeros(6, 3, dtype=torch.int64)},
            "weight": torch.tensor(1.0),
            "targets": {
                "label": torch.tensor(index % 2),
                "event": torch.tensor(0),
                "genes:tumor": torch.randn(4, generator=generator),
                "genes:microenvironment": torch.randn(4, generator=generator),
            },
        }
        for index in range(count)
    ]


class Kept(lightning.Callback):
    """Gradients as the optimiser sees them."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients = {n: p.grad.clone() for n, p in module.model.named_parameters() if p.grad is not None}


def gradients(subject, those=slice(8), *, batch=8, **options):
    kept = Kept()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[kept],
        **options,
    )
    trainer.fit(subject, DataLoader(patients(8)[those], batch_size=batch))
    return kept.gradients


def test_gradients_of_shared_parameters_lose_their_conflict():
    """The total gradient is the plain one, with the conflict of the two subspaces taken out of what they share."""
    plain, mended = gradients(module("none")), gradients(module("shared"))
    subject = module("shared")
    batch = torch.utils.data.default_collate(patients(8))
    subject.log = lambda *_, **__: None
    subject.losses(batch)
    shared = subject.model.shared_parameters()
    names = [name for name, p in subject.model.named_parameters() if any(p is s for s in shared)]
    flat = []
    for loss in subject._alone.values():
        parts = torch.autograd.grad(loss, shared, retain_graph=True)
        flat.append(torch.cat([part.reshape(-1) for part in parts]))
    change = conflict(flat, subject._seen)
    assert change.any()
    for name, part in zip(names, change.split([p.numel() for p in shared]), strict=True):
        torch.testing.assert_close(mended[name].reshape(-1), plain[name].reshape(-1) + part, atol=1e-6, rtol=1e-4)
    for name in plain.keys() - set(names):
        torch.testing.assert_close(mended[name], plain[name])


def test_accumulation_adds_up_the_changes_of_its_batches():
    """Two batches a step: each at half weight, like the losses."""
    subject = module("shared")
    both = gradients(subject, batch=4, accumulate_grad_batches=2)
    halves, before = [], module("shared").confidence.state_dict()
    for part in (slice(0, 4), slice(4, 8)):
        one = module("shared")
        one.confidence.load_state_dict(before)  # the second batch's confidence stands on the first's
        halves.append(gradients(one, part, batch=4))
        before = one.confidence.state_dict()
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, (halves[0][name] + halves[1][name]) / 2, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("coordination", ["shared", "head"])
def test_mixed_precision_trains(coordination):
    found = gradients(module(coordination), precision="bf16-mixed")
    assert all(torch.isfinite(value).all() for value in found.values())


def test_a_scaled_loss_has_a_scaled_change():
    """Under 16-mixed the gradients that the change is added to are those of the scaled loss."""
    subject = module("shared")
    subject.log = lambda *_, **__: None
    subject.losses(torch.utils.data.default_collate(patients(8)))
    subject._loss_scale = lambda: 1.0
    plain = subject._resolve(SCORES)
    subject._loss_scale = lambda: 1024.0
    for one, scaled in zip(plain, subject._resolve(SCORES), strict=True):
        torch.testing.assert_close(1024 * one, scaled, rtol=1e-4, atol=1e-5)


def one_rank(rank, port, folder):
    """What one of two processes does to its half of the patients."""
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(change(patients(8)[4 * rank : 4 * rank + 4]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def change(those):
    subject = module("shared")
    subject.log = lambda *_, **__: None
    subject._loss_scale = lambda: 1.0
    subject.losses(torch.utils.data.default_collate(those))
    return subject._resolve(SCORES)


def test_several_devices_make_the_change_of_all_their_patients(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = [[sys.executable, __file__, str(rank), str(port), str(tmp_path)] for rank in range(2)]
    ranks = [subprocess.Popen(command) for command in commands]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    whole = change(patients(8))
    assert any(part.any() for part in whole)
    for rank in range(2):
        for one, other in zip(whole, torch.load(tmp_path / f"{rank}.pt", weights_only=True), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_published_rule_goes_by_the_scores_of_all_batches_of_a_step():
    """Two halves of the patients as two batches of a step give what all of them give at once."""
    whole, halves = gradients(module("head")), gradients(module("head"), batch=4, accumulate_grad_batches=2)
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, halves[name], atol=1e-6, rtol=1e-4)


def test_published_rule_sees_the_whole_step():
    plain, mended = gradients(module("none")), gradients(module("head"))
    head = "head.10x.weight"
    changed = [name for name in plain if not torch.equal(plain[name], mended[name])]
    assert changed in ([], [head])
    subject = module("head")
    subject.log = lambda *_, **__: None
    subject.losses(torch.utils.data.default_collate(patients(8)))
    torch.testing.assert_close(mended[head], coordinate_rows(plain[head], subject._seen))


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
