"""Deformable attention against a slow reading of its formulas (specification §2.3), and density-peak clustering."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from histill.errors import HistillError
from histill.methods.disentangled import deformable
from histill.methods.disentangled.clustering import cluster_tokens, cluster_weights, merge_tokens
from histill.methods.disentangled.deformable import DeformableCrossAttention

SIDE, DIM, HEADS, WIDTH, POINTS = 12, 6, 2, 3, 3  # 3 x 3 sampled points


def small() -> DeformableCrossAttention:
    torch.manual_seed(0)
    attention = DeformableCrossAttention(DIM, HEADS, WIDTH, SIDE).double().eval()
    attention.offset[2].weight.data *= 3  # shifts of about half a point
    return attention


def tokens(seed: int, patients: int = 2) -> torch.Tensor:
    return torch.randn(patients, SIDE**2, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bilinear(image: torch.Tensor, column: float, row: float) -> torch.Tensor:
    """Value [C] of an image [C, S, S] at pixel coordinates; 0 outside."""
    value = torch.zeros(len(image), dtype=image.dtype)
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < SIDE and 0 <= c < SIDE:
                value = value + image[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return value


def slow(m: DeformableCrossAttention, queries: torch.Tensor, context: torch.Tensor):
    """One patient and head after the other, query by query and point by point."""
    patients, channels = len(queries), DIM // HEADS
    out, attention = torch.zeros_like(queries), torch.zeros(patients, HEADS, SIDE**2, POINTS**2).double()
    bias_layers = [m.position_bias.first, *(layer for layer in m.position_bias.rest if hasattr(layer, "weight"))]
    for patient in range(patients):
        joined = torch.zeros(SIDE**2, HEADS * WIDTH).double()
        for head in range(HEADS):
            own = slice(head * WIDTH, (head + 1) * WIDTH)
            part = slice(head * channels, (head + 1) * channels)
            w_query, w_key, w_value = (layer.weight[own, :, 0, 0] for layer in (m.query, m.key, m.value))
            q = queries[patient, :, part] @ w_query.T  # [N, h]
            padded = F.pad(q.T.reshape(WIDTH, SIDE, SIDE), (1, 1, 1, 1))
            image = context[patient, :, part].T.reshape(channels, SIDE, SIDE)
            places, keys, values = [], [], []
            for i in range(POINTS):
                for j in range(POINTS):
                    window = padded[:, 4 * i : 4 * i + 6, 4 * j : 4 * j + 6]
                    hidden = (window * m.offset[0].weight[:, 0]).sum(dim=(1, 2)) + m.offset[0].bias
                    shift = 4 * torch.tanh(m.offset[2].weight[:, :, 0, 0] @ F.gelu(hidden))
                    column, row = (2 * (at + by) / (POINTS - 1) - 1 for at, by in zip((j, i), shift, strict=True))
                    sampled = bilinear(image, ((column + 1) * SIDE - 1).item() / 2, ((row + 1) * SIDE - 1).item() / 2)
                    places.append((column, row))
                    keys.append(w_key @ sampled)
                    values.append(w_value @ sampled)
            for n in range(SIDE**2):
                logits = []
                for (column, row), key in zip(places, keys, strict=True):
                    delta = torch.stack(
                        [2 * (n % SIDE) / (SIDE - 1) - 1 - column, 2 * (n // SIDE) / (SIDE - 1) - 1 - row]
                    )
                    hidden = torch.sign(delta) * torch.log(1 + delta.abs())
                    for index, layer in enumerate(bias_layers):
                        hidden = layer(hidden)
                        hidden = F.relu(hidden) if index < 2 else hidden
                    logits.append(q[n] @ key / math.sqrt(WIDTH) + hidden[0])
                weights = torch.softmax(torch.stack(logits), dim=0)
                attention[patient, head, n] = weights
                joined[n, own] = weights @ torch.stack(values)
        out[patient] = joined @ m.out.weight.T + m.out.bias
    return out, attention


def test_as_published():
    attention = DeformableCrossAttention()
    assert sum(p.numel() for p in attention.parameters()) == 93_921
    with torch.no_grad():
        out, maps = attention(torch.randn(1, 2500, 128), torch.randn(1, 2500, 128))
    assert out.shape == (1, 2500, 128)
    assert maps.shape == (1, 8, 2500, 144)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(1, 8, 2500))


@torch.no_grad()
def test_equals_the_slow_reading():
    attention = small()
    queries, context = tokens(1), tokens(2)
    out, maps = attention(queries, context)
    assert (out - attention.out.bias).abs().mean() > 0.01  # points are inside the map
    for fast, reference in zip((out, maps), slow(attention, queries, context), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-9, atol=1e-9)


def test_blocks_and_gradients_do_not_depend_on_the_block(monkeypatch):
    attention = small()
    queries, context = tokens(1), tokens(2)

    def gradients():
        out, _ = attention(queries, context)
        return torch.autograd.grad(out.square().sum(), list(attention.parameters()))

    whole = gradients()
    monkeypatch.setattr(deformable, "BIAS_BLOCK", 1)
    for one, other in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_reaches_the_shifts():
    attention = small()
    out, _ = attention(tokens(1), tokens(2))
    out.square().sum().backward()
    for name in ("0.weight", "0.bias", "2.weight"):
        assert attention.offset.get_parameter(name).grad.abs().sum() > 0


def test_equal_queries_differ_by_the_position_bias_alone():
    attention = small()
    queries = tokens(1)[:, :1].expand(-1, SIDE**2, -1)
    for layer in attention.position_bias.rest:
        if hasattr(layer, "weight"):
            torch.nn.init.zeros_(layer.weight)
    _, maps = attention(queries, tokens(2))
    torch.testing.assert_close(maps, maps[:, :, :1].expand_as(maps))


def test_a_map_too_small_is_refused():
    with pytest.raises(HistillError, match="side 3"):
        DeformableCrossAttention(side=3)


def blobs(*sizes: int, dim: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens around centres 10 apart, and the blob of each, in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.cat([torch.full((size,), index) for index, size in enumerate(sizes)])
    label = label[torch.randperm(len(label), generator=generator)]
    centre = 10.0 * torch.eye(len(sizes), dim)
    return centre[label] + 0.3 * torch.randn(len(label), dim, generator=generator), label


def slow_clusters(x: torch.Tensor, kept: int) -> torch.Tensor:
    """DPC-KNN as specification §2.8 has it, with the whole distance matrix."""
    distance = (x[:, None] - x[None]).norm(dim=-1) / x.shape[1] ** 0.5
    density = [math.exp(-(row.sort().values[:5] ** 2).mean()) for row in distance]
    score = []
    for i, own in enumerate(density):
        denser = [distance[i, j] for j, other in enumerate(density) if other > own or (other == own and j < i)]
        score.append(own * float(min(denser, default=distance.max())))
    centres = sorted(range(len(x)), key=lambda i: -score[i])[:kept]
    return torch.tensor(
        [centres.index(i) if i in centres else int(distance[i, centres].argmin()) for i in range(len(x))]
    )


@pytest.mark.parametrize("kept", [2, 3, 7])
@pytest.mark.parametrize("chunk", [7, 256])
def test_clusters_are_those_of_the_whole_matrix(kept, chunk):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(3))
    assert cluster_tokens(x, torch.ones(60), kept, chunk=chunk).tolist() == slow_clusters(x, kept).tolist()


def test_separated_blobs_are_pure():
    x, label = blobs(40, 25, 10)
    cluster = cluster_tokens(x, torch.ones(len(x)), 3)
    for index in range(3):
        assert len(label[cluster == index].unique()) == 1


def test_ties_go_to_the_first_token():
    # Two pairs of equal tokens: all densities and separations tie.
    x = torch.tensor([[0.0], [8.0], [0.0], [8.0]])
    assert cluster_tokens(x, torch.ones(4), 2, neighbours=2).tolist() == [0, 1, 0, 1]
    # The middle token is as far from both centres.
    x = torch.tensor([[0.0], [0.0], [4.0], [8.0], [8.0]])
    assert cluster_tokens(x, torch.ones(5), 2, neighbours=2).tolist() == [0, 0, 0, 1, 1]


def test_only_the_most_weighted_tokens_are_candidates():
    x, label = blobs(300, 200)
    weights = torch.linspace(1, 0.5, len(x))
    cluster = cluster_tokens(x, weights, 2, candidates=50)
    assert len(label[cluster == 0].unique()) == len(label[cluster == 1].unique()) == 1
    # No candidate in the second blob: both centres are in the first.
    cluster = cluster_tokens(x, (label == 0).float(), 2, candidates=50)
    assert len(cluster[label == 0].unique()) == 2


def test_noise_changes_ties_only():
    x, _ = blobs(30, 20)
    plain = cluster_tokens(x, torch.ones(50), 2)
    assert cluster_tokens(x, torch.ones(50), 2, noise=1e-6).tolist() == plain.tolist()


def test_merging_by_hand():
    x = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [1.0, 1.0], [torch.nan, 0.0]]])
    weights, mask = torch.tensor([[1.0, 2.0, 3.0, 9.0]]), torch.tensor([[True, True, True, False]])
    # With no neighbour but itself every token is as dense, and the farthest from the first is the second centre.
    merged, cluster, share = merge_tokens(x, weights, mask, 2, neighbours=1)
    assert cluster.tolist() == [[0, 1, 0, -1]]
    torch.testing.assert_close(merged, torch.tensor([[[0.75, 0.75], [10.0, 0.0]]]))
    torch.testing.assert_close(share, torch.tensor([[4 / 6, 2 / 6]]))


def test_fewer_tokens_than_clusters_leave_empty_ones():
    x, weights = torch.randn(3, 2, 4), torch.ones(3, 2)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    merged, cluster, share = merge_tokens(x, weights, mask, 3)
    assert sorted(cluster[0].tolist()) == [0, 1]
    assert cluster[1:].tolist() == [[0, -1], [-1, -1]]
    assert not merged[0, 2].any()
    torch.testing.assert_close(share, torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0]]))


def test_a_cluster_without_weight_is_zero_and_has_finite_gradients():
    x, weights = torch.randn(1, 6, 4, requires_grad=True), torch.zeros(1, 6, requires_grad=True)
    merged, _, share = merge_tokens(x, weights, torch.ones(1, 6, dtype=bool), 2)
    (merged.sum() + share.sum()).backward()
    assert not merged.any()
    assert weights.grad.isfinite().all()
    assert x.grad.isfinite().all()


def test_gradient_flows_through_merging():
    x, _ = blobs(20, 10)
    x, weights = x[None].requires_grad_(), torch.rand(1, 30).requires_grad_()
    merged, cluster, _ = merge_tokens(x, weights, torch.ones(1, 30, dtype=bool), 2)
    merged.square().sum().backward()
    within, _ = cluster_weights(cluster, weights, 2)
    expected = (2 * merged.detach())[0][cluster[0]] * within.detach().sum(dim=1)[0, :, None]
    torch.testing.assert_close(x.grad[0], expected)
    assert weights.grad.abs().sum() > 0


def test_clusters_ignore_padding_and_keep_under_mixed_precision():
    x, _ = blobs(20, 10)
    x, weights, mask = x[None], torch.ones(1, 30), torch.ones(1, 30, dtype=bool)
    plain = merge_tokens(x, weights, mask, 2)
    padded = merge_tokens(F.pad(x, (0, 0, 0, 9)), F.pad(weights, (0, 9)), F.pad(mask, (0, 9)), 2)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = merge_tokens(x, weights, mask, 2)
    for other in (padded, mixed):
        torch.testing.assert_close(plain[0], other[0])
        assert plain[1].tolist() == other[1][:, :30].tolist()
        torch.testing.assert_close(plain[2], other[2])
