from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from histill.methods.nystrom import NystromAttention, pseudo_inverse, segment_means

DIM, HEADS = 16, 4


def attention(landmarks: int, **options) -> NystromAttention:
    torch.manual_seed(0)
    return NystromAttention(DIM, HEADS, landmarks, **options).eval()


def exact(layer: NystromAttention, x: torch.Tensor) -> torch.Tensor:
    """Softmax attention with the layer's own weights, of rows that are all real."""
    query, key, value = layer.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(-1, -2) / (DIM // HEADS) ** 0.5, dim=-1)
    attended = weights @ value + layer.local(value)
    return layer.out(attended.transpose(1, 2).flatten(2))


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("rows", [1, 7, 24])
def test_attention_is_exact_up_to_as_many_rows_as_landmarks(rows):
    layer, x = attention(24), torch.randn(2, rows, DIM)
    torch.testing.assert_close(layer(x, everywhere(x)), exact(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_more_landmarks_come_nearer_to_exact_attention(mask_padding):
    x = torch.randn(2, 96, DIM, generator=torch.Generator().manual_seed(3)).cumsum(dim=1) / 4  # neighbours are alike
    errors = []
    for landmarks in (3, 12, 48):
        layer = attention(landmarks, mask_padding=mask_padding)
        # The convolution is in both; without it the error is that of the attention alone.
        torch.nn.init.zeros_(layer.local.weight)
        errors.append((layer(x, everywhere(x)) - exact(layer, x)).norm().item() / exact(layer, x).norm().item())
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2] > 0


@pytest.mark.parametrize("rows", [5, 8, 30])
def test_a_sample_depends_on_neither_padding_nor_neighbours(rows):
    layer = attention(8)
    x, other = torch.randn(1, rows, DIM), torch.randn(1, 41, DIM)
    alone = layer(x, everywhere(x))
    both = torch.cat([F.pad(x, (0, 0, 0, 41 - rows), value=7.0), other])
    mask = torch.arange(41) < torch.tensor([[rows], [41]])
    together = layer(both, mask)
    torch.testing.assert_close(together[:1, :rows], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1:], layer(other, everywhere(other)), atol=1e-5, rtol=1e-5)
    assert not together[0, rows:].any()


def test_a_sample_without_rows_gives_finite_zeros_and_gradients():
    layer = attention(4)
    x = torch.randn(2, 9, DIM, requires_grad=True)
    mask = torch.tensor([[False] * 9, [True] * 9])
    out = layer(x, mask)
    out.square().sum().backward()
    assert not out[0].any()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert not x.grad[0].any()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize(("rows", "padded"), [(2117, 2304), (2049, 2304)])
def test_published_padding_comes_first_and_reaches_a_multiple(rows, padded):
    layer = NystromAttention(8, 2, 384, iterations=1, mask_padding=False)
    seen = []
    layer.local.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(1, rows, 8)
    assert layer(x, everywhere(x)).shape == x.shape
    assert seen[0].shape[2] == padded
    assert not seen[0][:, :, : padded - rows].any()
    assert seen[0][:, :, padded - rows].any()


def test_published_form_by_hand():
    """10 rows and 4 landmarks: two zero rows before, means of three, zero rows in every softmax."""
    layer, x = attention(4, mask_padding=False), torch.randn(2, 10, DIM)
    padded = torch.cat([torch.zeros(2, 2, DIM), x], dim=1)
    query, key, value = layer.qkv(padded).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    query = query / (DIM // HEADS) ** 0.5
    near_query, near_key = (part.unflatten(2, (4, 3)).mean(dim=3) for part in (query, key))
    first, middle, last = (
        torch.softmax(a @ b.transpose(-1, -2), dim=-1)
        for a, b in ((query, near_key), (near_query, near_key), (near_query, key))
    )
    inverse = middle.transpose(-1, -2) / (middle.sum(dim=-1).max() * middle.sum(dim=-2).max())
    one = torch.eye(4)
    for _ in range(6):
        product = middle @ inverse
        inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    attended = first @ inverse @ (last @ value) + layer.local(value)
    by_hand = layer.out(attended.transpose(1, 2).flatten(2))[:, 2:]
    torch.testing.assert_close(layer(x, everywhere(x)), by_hand, atol=1e-5, rtol=1e-5)


def test_dropout_is_after_the_output_layer():
    layer, x = attention(4, dropout=0.5).train(), torch.randn(1, 64, DIM)
    torch.manual_seed(1)
    assert 0.3 < (layer(x, everywhere(x)) == 0).float().mean() < 0.7


def test_segments_are_means_of_a_samples_own_rows():
    x = torch.arange(12.0).reshape(2, 6, 1)
    mask = torch.tensor([[True, False, True, True, True, True], [True, True, False, False, False, False]])
    means, count = segment_means(x, mask, 3)
    assert count.tolist() == [5, 2]
    assert means[0, :, 0].tolist() == [1.0, 3.5, 5.0]  # rows 0 and 2, 3 and 4, 5
    assert means[1, :, 0].tolist() == [6.0, 7.0, 0.0]


def test_the_pseudo_inverse_nears_the_inverse():
    torch.manual_seed(0)
    matrix = torch.softmax(torch.randn(3, 2, 8, 8) + 4 * torch.eye(8), dim=-1)
    for together in (True, False):
        found = pseudo_inverse(matrix, 12, together=together)
        torch.testing.assert_close(found @ matrix, torch.eye(8).expand_as(matrix), atol=1e-3, rtol=0)


def test_the_published_start_is_common_to_a_batch():
    matrix = torch.stack([torch.eye(4), torch.full((4, 4), 0.25) + torch.eye(4)])
    alone = pseudo_inverse(matrix[:1], 1)
    assert torch.equal(pseudo_inverse(matrix, 1)[:1], alone)
    assert not torch.allclose(pseudo_inverse(matrix, 1, together=True)[:1], alone)
