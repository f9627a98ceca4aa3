from __future__ import annotations

import math

import pytest
import torch

from histill.methods.mirror.monitors import modality_gap, monitors, variance


def test_variance_is_over_rows():
    assert variance(torch.tensor([[0.0, 5.0], [2.0, 5.0]])).item() == pytest.approx(0.5)
    assert variance(torch.randn(1, 8).expand(9, -1)).item() == pytest.approx(0, abs=1e-12)


def test_modality_gap_is_of_directions():
    rows = torch.randn(20, 6)
    assert modality_gap(rows, 3 * rows).item() == pytest.approx(0, abs=1e-6)
    assert modality_gap(torch.tensor([[2.0, 0.0]]), torch.tensor([[-1.0, 0.0]])).item() == pytest.approx(2)


def seen(count: int = 6, prototypes: int = 4) -> dict[str, torch.Tensor]:
    rows = {"tokens": torch.randn(40, 8)}
    for modality in ("slide", "rna"):
        rows |= {f"{name}_{modality}": torch.randn(count, 8) for name in ("encoded", "aligned", "mean")}
        rows[f"log_variance_{modality}"] = torch.zeros(count, 8)
        rows[f"assignment_{modality}"] = torch.log_softmax(torch.randn(count, prototypes), dim=-1)
    return rows


def test_all_monitors_are_scalars_and_see_a_collapse():
    rows = seen()
    figures = monitors(rows, torch.arange(6))
    assert all(value.dim() == 0 and value.isfinite() for value in figures.values())
    rows["mean_slide"] = torch.zeros(6, 8)
    rows["assignment_slide"] = rows["assignment_slide"][:1].expand(6, -1)
    rows["encoded_slide"] = rows["encoded_slide"][:1].expand(6, -1)
    rows["tokens"] = rows["tokens"][:1].expand(40, -1)
    collapsed = monitors(rows, torch.arange(6))
    for name in ("token_variance", "variance_slide", "kl_slide", "information_slide"):
        assert collapsed[name].item() == pytest.approx(0, abs=1e-6)
        assert figures[name] > 0.05
    assert collapsed["rank_slide"].item() == pytest.approx(1)
    assert collapsed["information_rna"] == figures["information_rna"]


def test_entropies_add_up_to_the_information():
    rows = seen()
    rows["assignment_rna"] = torch.full((6, 4), -math.log(4))
    figures = monitors(rows, torch.arange(6))
    assert figures["marginal_entropy_rna"].item() == pytest.approx(math.log(4))
    for modality in ("slide", "rna"):
        gain = figures[f"marginal_entropy_{modality}"] - figures[f"conditional_entropy_{modality}"]
        assert gain.item() == pytest.approx(figures[f"information_{modality}"].item(), abs=1e-6)
