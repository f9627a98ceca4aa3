from __future__ import annotations

import math

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from histill.errors import HistillError
from histill.methods.mirror.losses import same_profile
from histill.methods.mirror.model import MIRROR
from histill.methods.mirror.module import PretrainModule

LEARNING = {"learning_rate": 1e-3, "weight_decay": 0.0}
PUBLISHED_MODEL = {"positions": "order", "mask_padding": False, "temperature": None, "normalise": "before"}
PUBLISHED = {"target": "free", "clustering": "kl", "free_nats": 0.0}
SIZES = {"dim": 24, "heads": 4, "landmarks": 8, "rna_heads": 4, "latent": 8, "hidden": (16, 12), "prototypes": 20}


def module(model: dict | None = None, **options) -> PretrainModule:
    torch.manual_seed(0)
    return PretrainModule(MIRROR({"20x": 6}, 30, **SIZES, **(model or {})), **LEARNING, **options)


def batch(bags: int, tiles: int = 9) -> dict:
    return {
        "tokens": {"20x": torch.randn(bags, tiles, 6)},
        "cells": {"20x": torch.full((bags, tiles, 3), -1)},
        "mask": {"20x": torch.ones(bags, tiles, dtype=torch.bool)},
        "targets": {"genes:genes": torch.randn(bags, 30)},
        "weight": torch.ones(bags),
    }


def logged(own: PretrainModule) -> dict[str, torch.Tensor]:
    said = {}
    own.log = lambda name, value, **_: said.update({name: value})
    return said


def test_published_losses_at_initialisation():
    """§2.6: align ln B, retention 1.95 and 1.34, style 2.84, clustering 0.089, 1.50 in all."""
    torch.manual_seed(0)
    model = MIRROR(
        {"20x": 64}, 200, dim=768, heads=8, landmarks=16, tokens=49, rna_heads=12, prototypes=3000, **PUBLISHED_MODEL
    )
    # The reference figure is of prototypes as they are drawn, before they are first brought to unit length.
    model.style.prototypes.data.mul_(math.sqrt(768 / 3000))
    own, terms = PretrainModule(model, **LEARNING, **PUBLISHED), []
    for _ in range(4):
        data = batch(4, 49)
        data["tokens"] = {"20x": torch.randn(4, 49, 64)}
        data["targets"] = {"genes:genes": torch.randn(4, 200)}
        with torch.no_grad():
            terms.append(own.losses(own.see(data)))
    mean = {name: torch.stack([each[name] for each in terms]).mean().item() / own.lambdas[name] for name in terms[0]}
    assert mean["align"] == pytest.approx(math.log(4), abs=0.2)
    assert mean["slide"] == pytest.approx(1.95, abs=0.2)
    assert mean["rna"] == pytest.approx(1.34, abs=0.1)
    assert mean["style"] == pytest.approx(2.84, abs=0.3)
    assert mean["cluster"] == pytest.approx(0.089, abs=0.02)
    assert sum(own.lambdas[name] * value for name, value in mean.items()) == pytest.approx(1.50, abs=0.1)


def test_a_code_that_knows_nothing_costs_nothing_as_published_but_gains_nothing_by_default():
    for options in (PUBLISHED, {}):
        own = module(PUBLISHED_MODEL if options else None, **options).eval()
        for layer in (own.model.style.mean, own.model.style.log_variance, own.model.style.decode):
            torch.nn.init.zeros_(layer.weight)
        for layer in (own.model.style.mean, own.model.style.log_variance):
            torch.nn.init.zeros_(layer.bias)
        terms = own.losses(own.see(batch(5)))
        assert terms["style"].item() == 0
        assert terms["cluster"].item() == pytest.approx(0, abs=1e-6)
    # Assignments that tell patients apart, alike in both modalities, are worth less than nothing.
    seen = own.see(batch(5))
    for modality in ("slide", "rna"):
        seen[f"assignment_{modality}"] = torch.log_softmax(50 * torch.eye(5), dim=-1)
    assert own.losses(seen)["cluster"].item() == pytest.approx(-0.1 * 2 * math.log(5), abs=1e-4)


def test_free_nats_are_free():
    own = module(free_nats=3.0)
    seen = own.see(batch(4))
    for modality, mean in (("slide", 0.1), ("rna", 2.0)):
        seen[f"mean_{modality}"] = torch.full((4, 8), mean)
        seen[f"log_variance_{modality}"] = torch.zeros(4, 8)
    assert own.losses(seen)["style"].item() == pytest.approx(0.1 * (16 - 3))


def test_weights_of_bags_count():
    own = module(clustering="kl").eval()
    seen = own.see(batch(3))
    seen["weight"] = torch.tensor([3.0, 0.0, 0.0])
    assert own.losses(seen)["slide"].item() == pytest.approx(0.15 * seen["retention_slide"][0].item(), rel=1e-5)


def test_bags_without_tiles_are_left_out():
    own, data = module(), batch(4)
    data["mask"]["20x"][[1, 3]] = False
    kept = own.with_tiles(data)
    assert torch.equal(kept["targets"]["genes:genes"], data["targets"]["genes:genes"][[0, 2]])
    logged(own)
    assert own.training_step(data, 0).isfinite()
    data["mask"]["20x"][:] = False
    loss = own.training_step(data, 0)
    loss.backward()
    assert loss.item() == 0


def test_validation_is_of_all_patients_together_and_the_same_every_time():
    own, data = module().eval(), batch(6)
    said = logged(own)
    each = [
        {
            **{part: {"20x": data[part]["20x"][i : i + 1]} for part in ("tokens", "cells", "mask")},
            "targets": {"genes:genes": data["targets"]["genes:genes"][i : i + 1]},
            "weight": data["weight"][i : i + 1],
        }
        for i in range(6)
    ]
    found = []
    for _ in range(2):
        own.on_validation_epoch_start()
        with torch.no_grad():
            for index, one in enumerate(each):
                own.validation_step(one, index)
            own.on_validation_epoch_end()
        found.append({name: float(value) for name, value in said.items()})
    assert found[0] == found[1]
    with torch.no_grad():
        terms = own.losses(own.see(data))
    assert found[0]["validation_loss"] == pytest.approx(sum(terms.values()).item(), abs=1e-4)
    for name in ("token_variance", "rank_slide", "rank_rna", "kl_slide", "information_rna", "modality_gap"):
        assert math.isfinite(found[0][f"monitor_{name}"])
    assert found[0]["monitor_recall10_slide_to_rna"] == 1


def test_validation_without_any_tile_is_refused():
    own, data = module().eval(), batch(1)
    data["mask"]["20x"][:] = False
    own.on_validation_epoch_start()
    own.validation_step(data, 0)
    with pytest.raises(HistillError, match="no patient of the inner validation split has a tile at 20x"):
        own.on_validation_epoch_end()


def test_half_precision_is_finite_and_near_single():
    own, data = module().eval(), batch(4, 20)
    whole = own.losses(own.see(data))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = own.losses(own.see(data))
    torch.stack(list(half.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in own.parameters())
    for name, value in whole.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(value.item(), abs=0.03)


def test_two_bags_of_a_patient_share_a_group():
    data = batch(4)
    data["targets"]["genes:genes"][2] = data["targets"]["genes:genes"][0]
    assert same_profile(data["targets"]["genes:genes"]).unique().numel() == 3


@pytest.mark.parametrize(("model", "options"), [({}, {}), ({**PUBLISHED_MODEL, "tokens": 9}, PUBLISHED)])
def test_training_aligns_pairs(model, options):
    """Slides and genes that show the same factors find each other again, and every figure of the run is finite."""
    own = module(model, schedule="constant", **options)
    own.learning_rate = 3e-3
    torch.manual_seed(1)
    factors, data = torch.randn(24, 3), batch(24)
    data["tokens"]["20x"] = (factors @ torch.randn(3, 6))[:, None] + 0.1 * data["tokens"]["20x"]
    data["targets"]["genes:genes"] = factors @ torch.randn(3, 30)
    trainer = lightning.Trainer(
        max_epochs=25, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    loader = DataLoader([data], batch_size=None)
    trainer.fit(own, loader, loader)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert all(math.isfinite(value) for value in figures.values())
    assert {"train_loss", "validation_loss"} <= figures.keys()
    assert figures["monitor_recall1_slide_to_rna"] > 0.5
    assert 1 <= own.model.scale.item() <= 100.001
    torch.testing.assert_close(own.model.style.prototypes.norm(dim=1), torch.ones(20))
