from __future__ import annotations

import pytest
import torch

from histill.methods.disentangled.model import Student, Teacher
from histill.subspaces import SUBSPACES

FEATURES = {"10x": 7, "20x": 9}
GENES = {"tumor": 6, "microenvironment": 5}
MEMBERS = {"tumor": {"a": [0, 1, 2], "b": [2, 3]}, "microenvironment": {"c": [0, 4]}}


def teacher(**options):
    torch.manual_seed(0)
    model = Teacher(FEATURES, GENES, MEMBERS, 4, dim=16, heads=4, dropout=0.0, context=2, **options).eval()
    return awake(model)


def student(**options):
    torch.manual_seed(0)
    return awake(Student(FEATURES, 4, list(SUBSPACES), dim=16, dropout=0.0, context=2, **options).eval())


def awake(model):
    """The context starts as the identity: give it something to say."""
    for tiles in model.tiles.values():
        torch.nn.init.normal_(tiles.context.layer.weight)
    return model


NETWORKS = {
    "teacher": teacher,
    "teacher of genes": lambda: teacher(queries="genes"),
    "student": student,
    "student of four tokens": lambda: student(tokens=4),
    "student without aggregation": lambda: student(aggregation="mean"),
}


def batch(tiles=(5, 8), pad=0, patients=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    tokens, mask, cells = {}, {}, {}
    for level, count in zip(FEATURES, tiles, strict=True):
        real = torch.randn(patients, count, FEATURES[level], generator=generator)
        tokens[level] = torch.cat([real, 1e3 * torch.ones(patients, pad, FEATURES[level])], dim=1)
        mask[level] = torch.arange(count + pad).expand(patients, -1) < count
        place = torch.randint(0, 4, (patients, count, 3), generator=generator)
        cells[level] = torch.cat([place, -torch.ones(patients, pad, 3, dtype=torch.int64)], dim=1)
    genes = {k: torch.randn(patients, n, generator=generator) for k, n in GENES.items()}
    return {"tokens": tokens, "mask": mask, "cells": cells, "genes": genes}


@pytest.mark.parametrize("network", NETWORKS)
def test_shapes(network):
    output = NETWORKS[network]()(batch())
    for level in FEATURES:
        assert output["logits"][level].shape == (2, 4)
        for k in SUBSPACES:
            assert output["features"][k][level].shape == (2, 16)
            assert output["features"][k][level].abs().max() < 1
            torch.testing.assert_close(output["attention"][k][level].sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_never_changes_outputs(network):
    model = NETWORKS[network]()
    plain, padded = model(batch())["logits"], model(batch(pad=6))["logits"]
    for level in FEATURES:
        torch.testing.assert_close(plain[level], padded[level])


@pytest.mark.parametrize("network", NETWORKS)
def test_tiles_may_be_moved_about_together_with_their_places(network):
    model, one = NETWORKS[network](), batch()
    turned = {**one, **{name: {level: x.flip(1) for level, x in one[name].items()} for name in ("tokens", "cells")}}
    for level in FEATURES:
        torch.testing.assert_close(model(one)["logits"][level], model(turned)["logits"][level])


@pytest.mark.parametrize("network", NETWORKS)
def test_an_empty_magnification_is_finite(network):
    one = batch()
    one["mask"]["10x"][:] = False
    model = NETWORKS[network]().train()
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
        torch.testing.assert_close(before["features"]["tumor"][level], after["features"]["tumor"][level])
        own = "microenvironment"
        assert not torch.allclose(before["features"][own][level], after["features"][own][level])


def test_no_gene_in_the_student():
    one = batch()
    del one["genes"]
    assert student()(one)["logits"]["10x"].shape == (2, 4)
    assert not any("gene" in name for name, _ in student().named_parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_places_matter(network):
    model, one = NETWORKS[network](), batch()
    moved = {**one, "cells": {level: cells.flip(1) for level, cells in one["cells"].items()}}
    assert not torch.allclose(model(one)["logits"]["20x"], model(moved)["logits"]["20x"])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_magnification_that_is_not_there_is_left_out(network):
    one = batch()
    for name in ("tokens", "mask", "cells"):
        one[name] = {"20x": one[name]["20x"]}
    output = NETWORKS[network]()(one)
    assert list(output["logits"]) == ["20x"]
    torch.testing.assert_close(output["logits"]["20x"], NETWORKS[network]()(batch())["logits"]["20x"])


def test_queries_differ():
    """The public design repeats one query; here every gene set looks for itself."""
    model, one = teacher(), batch()
    tokens = model.genes["tumor"](one["genes"]["tumor"])
    assert not torch.allclose(tokens[:, 0], tokens[:, 1])


def test_student_assigns_every_tile_and_says_what_it_keeps():
    output = student(tokens=4)(batch(pad=3))
    assignment = output["assignment"]["20x"]
    torch.testing.assert_close(assignment.sum(dim=-1), batch(pad=3)["mask"]["20x"].float())
    assert (output["kept"]["20x"] == 4).all()
    assert (output["kept"]["10x"] <= 4).all()


def test_one_subspace_where_fusion_is_joint():
    torch.manual_seed(0)
    members = {"joint": {"a": [0, 1], "b": [2, 3]}}
    model = Teacher(FEATURES, {"joint": 4}, members, 3, dim=16, heads=4, dropout=0.0)
    output = model({**batch(), "genes": {"joint": torch.randn(2, 4)}})
    assert output["logits"]["10x"].shape == (2, 3)
    assert list(output["features"]) == ["joint"]


def test_where_a_subspace_looks_and_what_it_tells_does_not_depend_on_the_patients_genes():
    """Else the expression could be told from the attention, whatever the tiles."""
    model, one = teacher(), batch()
    other = {**one, "genes": {k: genes + 1 for k, genes in one["genes"].items()}}
    before, after = model(one), model(other)
    for k in SUBSPACES:
        for name in ("attention", "told", "seen"):
            torch.testing.assert_close(before[name][k]["20x"], after[name][k]["20x"])
        assert not torch.allclose(before["features"][k]["20x"], after["features"][k]["20x"])
