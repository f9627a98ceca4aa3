"""The baselines' networks: what each reads, what padding and missing tiles do, and what it can learn."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from histill.errors import HistillError
from histill.methods import train
from histill.methods.baselines.mcat import MCAT, GroupEmbedding
from histill.methods.baselines.meanpool import MeanPool
from histill.methods.baselines.snn import SNN, SelfNormalising
from histill.methods.checkpoint import Checkpoint

FEATURES = {"10x": 5, "20x": 7}
GROUPS = {"kinases": [0, 4], "none": [], "cytokines": [1, 2, 3]}


def batch(pad: int = 0) -> dict:
    """Two patients with three 10x and four 20x tiles each, and `pad` tiles of padding that must not matter."""
    generator = torch.Generator().manual_seed(0)
    found: dict = {"tokens": {}, "mask": {}, "genes": {"genes": torch.randn(2, 5, generator=generator)}}
    for (level, width), count in zip(FEATURES.items(), (3, 4), strict=True):
        tiles = torch.randn(2, count, width, generator=generator)
        found["tokens"][level] = torch.cat([tiles, torch.full((2, pad, width), 1e3)], dim=1)
        found["mask"][level] = torch.arange(count + pad).expand(2, -1) < count
    return found


def mcat(**options) -> MCAT:
    torch.manual_seed(0)
    return MCAT(FEATURES, 3, GROUPS, **{"dim": 8, "heads": 2, "layers": 1, "dropout": 0.25, **options}).eval()


def meanpool(hidden: int = 6) -> MeanPool:
    torch.manual_seed(0)
    return MeanPool(FEATURES, 3, hidden=hidden, dropout=0.25).eval()


@pytest.mark.parametrize("make", [meanpool, mcat])
def test_padding_changes_nothing(make):
    network = make()
    plain, padded = network(batch())["logits"], network(batch(pad=5))["logits"]
    for level in FEATURES:
        assert plain[level].shape == (2, 3)
        torch.testing.assert_close(padded[level], plain[level])


@pytest.mark.parametrize("make", [meanpool, mcat])
def test_a_level_without_tiles_is_finite_and_learns(make):
    network, own = make().train(), batch()
    own["mask"]["20x"] = torch.zeros_like(own["mask"]["20x"])
    logits = network(own)["logits"]
    assert all(value.isfinite().all() for value in logits.values())
    sum(value.square().sum() for value in logits.values()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_linear_head_reads_the_mean_of_the_tiles():
    network, own = meanpool(hidden=0), batch()
    for level, head in network.head.items():
        assert isinstance(head, nn.Linear)
        torch.testing.assert_close(network(own)["logits"][level], head(own["tokens"][level].mean(dim=1)))


def test_mean_pooling_of_a_bag_is_that_of_its_mean():
    network, own = meanpool(), batch()
    means = {level: tiles.mean(dim=1, keepdim=True) for level, tiles in own["tokens"].items()}
    one = {"tokens": means, "mask": {level: torch.ones(2, 1, dtype=torch.bool) for level in means}}
    for level, logits in network(own)["logits"].items():
        torch.testing.assert_close(network(one)["logits"][level], logits)


def test_self_normalising_blocks_keep_mean_and_variance():
    """Klambauer et al.: the fixed point (0, 1) attracts, through many blocks and under alpha dropout."""
    torch.manual_seed(0)
    layers = SelfNormalising(500, 400, layers=8, dropout=0.1)
    for mode in (layers.eval(), layers.train()):
        found = mode(torch.randn(512, 500))
        assert abs(found.mean().item()) < 0.1
        assert found.std().item() == pytest.approx(1.0, abs=0.1)


def test_snn_reads_genes_alone():
    torch.manual_seed(0)
    network = SNN(5, 3, dim=8, layers=2, dropout=0.25).eval()
    genes = batch()["genes"]
    assert network({"genes": genes, "tokens": {}, "mask": {}})["logits"]["rna"].shape == (2, 3)
    sizes = [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(5, 8), (8, 8), (8, 3)]


def test_a_gene_group_hears_its_own_genes_and_one_without_genes_is_left_out():
    torch.manual_seed(0)
    embed = GroupEmbedding(GROUPS, 8, dropout=0.0).eval()
    genes = torch.randn(1, 5, requires_grad=True)
    assert embed.names == ["kinases", "cytokines"]
    (heard,) = torch.autograd.grad(embed(genes)[:, 0].sum(), genes)
    assert (heard[0] != 0).tolist() == [True, False, False, False, True]
    with pytest.raises(HistillError, match="no gene of the groups a"):
        GroupEmbedding({"a": []}, 8, dropout=0.0)


def test_co_attention_is_that_of_the_paper():
    """softmax(G W_q (H W_k)ᵀ / √d) H W_v over the tiles of a patient."""
    network, own = mcat(), batch()
    read = network.levels["20x"]
    groups, tiles = network.embed(own["genes"]["genes"]), read.project(own["tokens"]["20x"])
    scores = read.attend.query(groups) @ read.attend.key(tiles).transpose(1, 2) / 8**0.5
    seen = read.attend.out(torch.softmax(scores, dim=-1) @ read.attend.value(tiles))
    both = torch.cat([read.slide(seen), read.genes(groups)], dim=1)
    output = network(own)
    torch.testing.assert_close(output["logits"]["20x"], read.head(read.fuse(both)))
    torch.testing.assert_close(output["attention"]["cytokines"]["20x"], torch.softmax(scores, dim=-1)[:, 1])


def test_attention_of_each_group_sums_to_one_over_real_tiles():
    own = batch(pad=3)
    for by_level in mcat()(own)["attention"].values():
        for level, weights in by_level.items():
            torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
            assert not weights[~own["mask"][level]].any()


def test_order_of_tiles_does_not_matter_to_mcat():
    network, own = mcat(), batch()
    turned = {**own, "tokens": {level: tiles.flip(1) for level, tiles in own["tokens"].items()}}
    for level, logits in network(own)["logits"].items():
        torch.testing.assert_close(network(turned)["logits"][level], logits)


def test_mcat_learns_what_neither_modality_tells_alone():
    """The class is whether the marked tile and the marked gene point the same way."""
    torch.manual_seed(0)
    count = 64
    sign, label = torch.randint(0, 2, (2, count))
    tiles, genes = 0.1 * torch.randn(count, 6, 4), 0.1 * torch.randn(count, 3)
    tiles[torch.arange(count), torch.randint(0, 6, (count,)), 0] = 2.0 * sign - 1
    genes[:, 0] = 2.0 * (sign == label) - 1
    network = MCAT({"20x": 4}, 2, {"a": [0, 1], "b": [2]}, dim=16, heads=2, layers=1, dropout=0.0)
    own = {"tokens": {"20x": tiles}, "mask": {"20x": torch.ones(count, 6, dtype=torch.bool)}, "genes": {"genes": genes}}
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(network(own)["logits"]["20x"], label).backward()
        optimizer.step()
    assert (network(own)["logits"]["20x"].argmax(dim=-1) == label).float().mean() > 0.95


@pytest.fixture(scope="module")
def cohort(planted):
    results, config, _ = planted(45, epochs=1)
    return results, config


def trained(results, config, method) -> Checkpoint:
    train.run(task="os", method=method, stage="train", config=config, results=results, only=(0, 0), log=lambda _: None)
    return Checkpoint.read(train.run_folder(results, "os", method, "train", 0, 0))


def test_transmil_reads_all_magnifications_or_the_one_asked_for(cohort):
    results, config = cohort
    one = copy.deepcopy(config)
    one["methods"]["transmil"]["magnification"] = "20x"
    assert list(trained(results, config, "transmil").scalers) == ["10x", "20x"]
    alone = trained(results, one, "transmil")
    assert list(alone.scalers) == list(alone.arguments["features"]) == ["20x"]
    one["methods"]["transmil"]["magnification"] = "40x"
    with pytest.raises(HistillError, match="no store has '40x'") as raised:
        trained(results, one, "transmil")
    assert "10x, 20x" in raised.value.mend


def test_mcat_attends_by_the_shipped_families(cohort):
    checkpoint = trained(*cohort, "mcat")
    groups = checkpoint.arguments["groups"]
    assert {"TUMOR_SUPPRESSORS", "ONCOGENES"} <= groups.keys()
    assert len(checkpoint.expression.genes_["genes"]) == len({row for rows in groups.values() for row in rows})


def test_snn_reads_every_gene_and_no_slide(cohort):
    checkpoint = trained(*cohort, "snn")
    assert checkpoint.scalers == {}
    assert checkpoint.arguments["genes"] == len(checkpoint.expression.genes_["genes"])
