from __future__ import annotations

import pytest
import torch

from histill.methods.disentangled.losses import distil_features, distil_logits, orthogonality
from histill.methods.disentangled.model import Student, SubspacePooling, Teacher
from histill.subspaces import SUBSPACES

FEATURES = {"10x": 7, "20x": 9}
GENES = {"tumor": 6, "microenvironment": 5}
MEMBERS = {"tumor": {"a": [0, 1, 2], "b": [2, 3]}, "microenvironment": {"c": [0, 4]}}


def teacher(outputs=4):
    torch.manual_seed(0)
    return Teacher(FEATURES, GENES, MEMBERS, outputs, dim=16, heads=4, dropout=0.0).eval()


def student(outputs=4):
    torch.manual_seed(0)
    return Student(FEATURES, outputs, dim=16, dropout=0.0).eval()


def batch(tiles=(5, 8), pad=0, patients=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    tokens, mask = {}, {}
    for level, count in zip(FEATURES, tiles, strict=True):
        real = torch.randn(patients, count, FEATURES[level], generator=generator)
        tokens[level] = torch.cat([real, 1e3 * torch.ones(patients, pad, FEATURES[level])], dim=1)
        mask[level] = torch.arange(count + pad).expand(patients, -1) < count
    genes = {k: torch.randn(patients, n, generator=generator) for k, n in GENES.items()}
    return {"tokens": tokens, "mask": mask, "genes": genes}


@pytest.mark.parametrize("network", [teacher, student])
def test_shapes(network):
    output = network()(batch())
    for level in FEATURES:
        assert output["logits"][level].shape == (2, 4)
        for k in SUBSPACES:
            assert output[k][level].shape == (2, 16)
            assert output[k][level].abs().max() < 1


@pytest.mark.parametrize("network", [teacher, student])
def test_padding_never_changes_outputs(network):
    model = network()
    plain, padded = model(batch())["logits"], model(batch(pad=6))["logits"]
    for level in FEATURES:
        torch.testing.assert_close(plain[level], padded[level])


@pytest.mark.parametrize("network", [teacher, student])
def test_order_of_tiles_does_not_matter(network):
    model, one = network(), batch()
    turned = {**one, "tokens": {level: tokens.flip(1) for level, tokens in one["tokens"].items()}}
    for level in FEATURES:
        torch.testing.assert_close(model(one)["logits"][level], model(turned)["logits"][level])


@pytest.mark.parametrize("network", [teacher, student])
def test_an_empty_magnification_is_finite(network):
    one = batch()
    one["mask"]["10x"][:] = False
    model = network().train()
    output = model(one)
    sum(value.sum() for value in output["logits"].values()).backward()
    assert all(torch.isfinite(value).all() for value in output["logits"].values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_teacher_reads_genes_of_a_set_only_through_the_set():
    model, one = teacher(), batch()
    outside = {**one, "genes": {k: g.clone() for k, g in one["genes"].items()}}
    outside["genes"]["tumor"][:, 4:] += 100  # genes 4 and 5 are in no set
    inside = {**one, "genes": {k: g.clone() for k, g in one["genes"].items()}}
    inside["genes"]["tumor"][:, 3] += 1
    for level in FEATURES:
        torch.testing.assert_close(model(one)["logits"][level], model(outside)["logits"][level])
        assert not torch.allclose(model(one)["logits"][level], model(inside)["logits"][level])


def test_subspaces_stay_apart_in_the_teacher():
    """Microenvironment genes move the microenvironment's feature alone."""
    model, one = teacher(), batch()
    other = {**one, "genes": {**one["genes"], "microenvironment": one["genes"]["microenvironment"] + 1}}
    before, after = model(one), model(other)
    for level in FEATURES:
        torch.testing.assert_close(before["tumor"][level], after["tumor"][level])
        assert not torch.allclose(before["microenvironment"][level], after["microenvironment"][level])


def test_no_gene_in_the_student():
    one = batch()
    del one["genes"]
    assert student()(one)["logits"]["10x"].shape == (2, 4)
    assert not any("gene" in name for name, _ in student().named_parameters())


def test_pooling_assigns_blobs_by_prototype_not_by_density():
    torch.manual_seed(0)
    pool = SubspacePooling(8)
    with torch.no_grad():
        pool.prototypes.copy_(8 * torch.eye(8)[:2])
    for small, large in ((3, 40), (40, 3)):
        tiles = torch.zeros(1, small + large, 8)
        tiles[0, :small, 0] = 5.0
        tiles[0, small:, 1] = 5.0
        mask = torch.ones(1, small + large, dtype=torch.bool)
        tokens, assignment, weights = pool(tiles, mask)
        assert (assignment[0, :small, 0] > 0.99).all()
        assert (assignment[0, small:, 1] > 0.99).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 2))
        assert tokens[0, 0].argmax() == 0
        assert tokens[0, 1].argmax() == 1


@pytest.mark.parametrize("survival", [True, False])
def test_distillation_is_zero_for_equal_logits_and_positive_else(survival):
    logits = torch.randn(5, 4)
    same = distil_logits(logits, logits, temperature=2.0, survival=survival)
    torch.testing.assert_close(same, torch.zeros(5), atol=1e-6, rtol=0)
    assert (distil_logits(logits, torch.randn(5, 4), temperature=2.0, survival=survival) > 0).all()


def test_feature_distillation_ignores_scale():
    features = torch.randn(5, 16)
    torch.testing.assert_close(distil_features(features, 0.1 * features), torch.zeros(5), atol=1e-6, rtol=0)


def test_orthogonality():
    x, y = torch.eye(4)[:1], torch.eye(4)[1:2]
    output = {"logits": {"10x": None}, "tumor": {"10x": x}, "microenvironment": {"10x": y}}
    assert orthogonality(output).item() == 0
    output["microenvironment"]["10x"] = -2 * x
    assert orthogonality(output).item() == pytest.approx(1)
