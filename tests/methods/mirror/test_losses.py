from __future__ import annotations

import math

import pytest
import torch

from histill.methods.mirror.losses import (
    divergence,
    entropy,
    info_nce,
    marginal,
    mutual_information,
    posterior_kl,
    retention,
    same_profile,
)


def assignment(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).clamp(min=1e-30).log()


def test_info_nce_is_ln_b_where_nothing_is_aligned():
    loss = info_nce(torch.zeros(8, 4), torch.randn(8, 4), torch.tensor(14.3), torch.arange(8))
    torch.testing.assert_close(loss, torch.full((8,), math.log(8)))


def test_info_nce_by_hand_goes_both_ways():
    slide, rna = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    # Products are [[2, 2], [0, 2]] at a scale of 2.
    forth = [math.log(2), math.log(1 + math.exp(-2))]
    back = [math.log(1 + math.exp(-2)), math.log(2)]
    loss = info_nce(slide, rna, torch.tensor(2.0), torch.arange(2))
    torch.testing.assert_close(loss, 0.5 * (torch.tensor(forth) + torch.tensor(back)))


def test_bags_of_a_patient_are_no_negatives_of_each_other():
    torch.manual_seed(0)
    slide, rna = torch.randn(3, 4), torch.randn(2, 4)
    rna = rna[[0, 0, 1]]
    group = same_profile(rna)
    assert group[0] == group[1] != group[2]
    loss = info_nce(slide, rna, torch.tensor(1.0), group)
    for own in (0, 1):
        alone = info_nce(slide[[own, 2]], rna[[own, 2]], torch.tensor(1.0), torch.arange(2))
        forth = -torch.log_softmax(slide[own] @ rna[[own, 2]].T, dim=-1)[0]
        back = -torch.log_softmax(slide[[own, 2]] @ rna[own], dim=-1)[0]
        torch.testing.assert_close(loss[own], 0.5 * (forth + back))
        torch.testing.assert_close(loss[own], alone[0])


def test_a_single_pair_has_nothing_to_lose():
    assert info_nce(torch.ones(1, 4), torch.ones(1, 4), torch.tensor(5.0), torch.zeros(1)).item() == 0


def test_retention_is_of_masked_places_alone():
    torch.manual_seed(0)
    told, target, hidden = torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.rand(2, 5) < 0.6
    hidden[:, 0], hidden[:, 1] = True, False
    loss = retention(told, target, hidden, stopped=True)
    other = torch.where(hidden[..., None], told, torch.randn(2, 5, 3))
    assert torch.equal(retention(other, target, hidden, stopped=True), loss)
    by_hand = [((told[b] - target[b])[hidden[b]] ** 2).mean() for b in range(2)]
    torch.testing.assert_close(loss, torch.stack(by_hand))
    assert retention(told, target, torch.zeros_like(hidden), stopped=True).tolist() == [0, 0]


@pytest.mark.parametrize("stopped", [True, False])
def test_only_a_free_target_has_a_gradient(stopped):
    told, target = (torch.randn(2, 5, 3, requires_grad=True) for _ in range(2))
    retention(told, target, torch.ones(2, 5, dtype=torch.bool), stopped=stopped).sum().backward()
    assert told.grad is not None
    assert (target.grad is None) == stopped


def test_posterior_kl_is_zero_at_the_prior_and_known_elsewhere():
    zero = torch.zeros(3, 7)
    assert posterior_kl(zero, zero).tolist() == [0, 0, 0]
    torch.testing.assert_close(posterior_kl(zero + 2, zero), torch.full((3,), 14.0))
    torch.testing.assert_close(posterior_kl(zero, zero + 1), torch.full((3,), 3.5 * (math.e - 2)))
    mean, log_variance = torch.randn(4, 7), torch.randn(4, 7)
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    known = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(dim=-1)
    torch.testing.assert_close(posterior_kl(mean, log_variance), known)


def test_divergence_is_the_mean_of_both_kl():
    first, second = (torch.log_softmax(torch.randn(4, 9), dim=-1) for _ in range(2))
    one, two = (torch.distributions.Categorical(logits=x) for x in (first, second))
    kl = torch.distributions.kl_divergence
    torch.testing.assert_close(divergence(first, second), 0.5 * (kl(one, two) + kl(two, one)))
    assert divergence(first, first).tolist() == [0] * 4


def test_divergence_of_far_apart_assignments_is_finite():
    """A softmax that is then taken the logarithm of underflows here (#16)."""
    first = torch.log_softmax(torch.tensor([[0.0, 500.0]]), dim=-1).requires_grad_()
    second = torch.log_softmax(torch.tensor([[500.0, 0.0]]), dim=-1)
    loss = divergence(first, second)
    loss.sum().backward()
    assert loss.item() == pytest.approx(500)
    assert first.grad.isfinite().all()


def test_mutual_information_runs_from_none_to_all():
    same, own = assignment([0.25] * 4, [0.25] * 4), assignment([1.0, 0, 0, 0], [0, 0, 1.0, 0])
    assert mutual_information(same).item() == pytest.approx(0, abs=1e-6)
    assert mutual_information(own).item() == pytest.approx(math.log(2), abs=1e-5)
    assert mutual_information(own[:1].expand(5, -1)).item() == pytest.approx(0, abs=1e-6)


def test_mutual_information_is_the_mean_divergence_from_the_marginal():
    rows = torch.log_softmax(2 * torch.randn(6, 9), dim=-1)
    torch.testing.assert_close(marginal(rows).exp(), rows.exp().mean(dim=0))
    each = (rows.exp() * (rows - marginal(rows))).sum(dim=-1)
    torch.testing.assert_close(mutual_information(rows), each.mean())
    assert entropy(assignment([0.5, 0.5]))[0].item() == pytest.approx(math.log(2))
