"""Published names of weights into those of the networks built here, against independent formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from histill.encoders import layouts
from histill.encoders.conch import AttentionPooler, BiasFreePooler
from histill.encoders.ctranspath import ConvStem


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_dinov2_with_registers():
    """Meta adds positions to class token and patches, then puts registers between them."""
    import timm
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(
        img_size=56, patch_size=14, embed_dim=32, depth=2, num_heads=2, mlp_ratio=4, num_classes=0, init_values=1.0,
        reg_tokens=4, no_embed_class=True, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU,
    ).eval()  # fmt: skip
    published = {
        key.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3."): torch.randn_like(value) * 0.1
        for key, value in network.state_dict().items()
    }
    published["register_tokens"] = published.pop("reg_token")
    published["pos_embed"] = torch.randn(1, 17, 32)
    published["mask_token"] = torch.zeros(1, 32)
    network.load_state_dict(layouts.dinov2(published))

    pixels = torch.randn(2, 3, 56, 56)
    patches = F.conv2d(pixels, published["patch_embed.proj.weight"], published["patch_embed.proj.bias"], stride=14)
    tokens = torch.cat([published["cls_token"].expand(2, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + published["pos_embed"]
    tokens = torch.cat([tokens[:, :1], published["register_tokens"].expand(2, -1, -1), tokens[:, 1:]], dim=1)
    with torch.no_grad():
        expected = network.norm(network.blocks(tokens))[:, 0]
        # The gated unit by its own formula, on the published names.
        block = "blocks.0.mlp."
        gate, value = F.linear(tokens, published[f"{block}w12.weight"], published[f"{block}w12.bias"]).chunk(2, dim=-1)
        unit = F.linear(F.silu(gate) * value, published[f"{block}w3.weight"], published[f"{block}w3.bias"])
        torch.testing.assert_close(network.blocks[0].mlp(tokens), unit)
        torch.testing.assert_close(network(pixels), expected)
    assert timm.__version__


def test_ctranspath_moves_downsampling_to_the_next_stage():
    state = {
        "layers.0.downsample.norm.weight": torch.zeros(1),
        "layers.2.downsample.reduction.weight": torch.ones(1),
        "layers.2.blocks.5.attn_mask": torch.ones(1),
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(1),
        "layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(1),
    }
    assert set(layouts.ctranspath(state)) == {
        "layers.1.downsample.norm.weight",
        "layers.3.downsample.reduction.weight",
        "layers.0.blocks.0.attn.relative_position_bias_table",
    }


def test_conv_stem():
    stem = ConvStem(224, 4, 3, 96, torch.nn.LayerNorm, strict_img_size=True).eval()
    pixels = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        out = stem(pixels)
        norms = [layer for layer in stem.proj if isinstance(layer, torch.nn.BatchNorm2d)]
        convs = [layer for layer in stem.proj if isinstance(layer, torch.nn.Conv2d)]
        x = pixels
        for conv, norm in zip(convs, norms, strict=False):
            x = F.relu(norm(F.conv2d(x, conv.weight, stride=2, padding=1)))
        expected = stem.norm(F.conv2d(x, convs[-1].weight, convs[-1].bias).permute(0, 2, 3, 1))
    assert [layer.out_channels for layer in convs] == [12, 24, 96]
    assert out.shape == (2, 16, 8, 96)
    torch.testing.assert_close(out, expected)
    with pytest.raises(ValueError, match="4 px"):
        ConvStem(patch_size=8)


def attention(query, key, value, heads: int):
    """Softmax attention, one head at a time."""
    outputs = []
    for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (query, key, value)), strict=True):
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        outputs.append(weights @ v)
    return torch.cat(outputs, dim=-1)


def test_conch_pooler():
    pooler = AttentionPooler(32, 24).eval()
    torch.nn.init.normal_(pooler.query)
    torch.nn.init.normal_(pooler.attn.in_proj_bias)
    tokens = torch.randn(3, 7, 24)
    with torch.no_grad():
        state = pooler.attn.state_dict()
        assert {"q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"} <= state.keys()
        biases = state["in_proj_bias"].chunk(3)
        normed = F.layer_norm(tokens, (24,), pooler.ln_k.weight, pooler.ln_k.bias)
        query = F.layer_norm(pooler.query, (32,), pooler.ln_q.weight, pooler.ln_q.bias).expand(3, 1, 32)
        parts = [
            F.linear(x, state[f"{name}_proj_weight"], bias)
            for name, x, bias in zip("qkv", (query, normed, normed), biases, strict=True)
        ]
        expected = pooler.attn.out_proj(attention(*parts, heads=8))[:, 0]
        torch.testing.assert_close(pooler(tokens), expected)


def test_conch_v1_5_pooler():
    pooler = BiasFreePooler(32, 24).eval()
    torch.nn.init.normal_(pooler.query)
    tokens = torch.randn(3, 7, 24)
    with torch.no_grad():
        normed = pooler.ln_k(tokens)
        key, value = F.linear(normed, pooler.to_kv.weight).chunk(2, dim=-1)
        query = F.linear(pooler.ln_q(pooler.query), pooler.to_q.weight).expand(3, 1, 32)
        expected = F.linear(attention(query, key, value, heads=8), pooler.to_out.weight)[:, 0]
        torch.testing.assert_close(pooler(tokens), expected)


def test_conch_v1_keeps_the_image_side():
    state = {
        "visual.trunk.cls_token": torch.zeros(1),
        "visual.attn_pool_contrast.query": torch.zeros(1),
        "visual.attn_pool_caption.query": torch.zeros(1),
        "visual.ln_contrast.weight": torch.zeros(1),
        "visual.ln_caption.weight": torch.zeros(1),
        "visual.proj_contrast": torch.zeros(1),
        "text.token_embedding.weight": torch.zeros(1),
        "logit_scale": torch.zeros(1),
    }
    kept = {"trunk.cls_token", "attn_pool_contrast.query", "ln_contrast.weight"}
    assert set(layouts.conch_v1(state)) == kept
    assert set(layouts.conch_v1({f"module.{key}": value for key, value in state.items()})) == kept


def test_conch_v1_5_positions_are_stretched_as_its_authors_do():
    positions = torch.randn(1, 197, 6)
    stretched = layouts.conch_v1_5({"trunk.pos_embed": positions})["trunk.pos_embed"]
    assert stretched.shape == (1, 785, 6)
    torch.testing.assert_close(stretched[:, 0], positions[:, 0])
    # Output x lies at (x + 1/2) · 14 / 28.1 − 1/2 of the input; bicubic with a = −3/4, edges repeated.
    grid = positions[0, 1:].reshape(14, 14, 6)

    def weight(distance: float) -> float:
        d, a = abs(distance), -0.75
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    for y, x in ((0, 0), (13, 20), (27, 27), (5, 0)):
        cy, cx = ((at + 0.5) * 14 / 28.1 - 0.5 for at in (y, x))
        value = sum(
            weight(cy - iy) * weight(cx - ix) * grid[min(max(iy, 0), 13), min(max(ix, 0), 13)]
            for iy in range(math.floor(cy) - 1, math.floor(cy) + 3)
            for ix in range(math.floor(cx) - 1, math.floor(cx) + 3)
        )
        torch.testing.assert_close(stretched[0, 1 + 28 * y + x], value, rtol=1e-4, atol=1e-4)
    whole = {"trunk.pos_embed": torch.randn(1, 785, 6)}
    assert layouts.conch_v1_5(whole)["trunk.pos_embed"] is whole["trunk.pos_embed"]


def test_keep_drops_the_text_side_and_names_the_layer_scale():
    state = {
        "visual.blocks.0.ls1.weight": torch.zeros(1),
        "visual.blocks.0.norm1.weight": torch.zeros(1),
        "visual_head.0.weight": torch.zeros(1),
        "text.embeddings.weight": torch.zeros(1),
        "logit_scale": torch.zeros(1),
    }
    assert set(layouts.keep(state)) == {
        "visual.blocks.0.ls1.gamma",
        "visual.blocks.0.norm1.weight",
        "visual_head.0.weight",
    }
