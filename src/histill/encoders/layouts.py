"""How published files name their weights, and how the networks built here do: one function a layout, state -> state."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


def plain(state: State) -> State:
    """As the network names them."""
    return state


def dinov2(state: State) -> State:
    """Meta's DINOv2 with registers, into timm's.

    timm keeps no position for the class token: it belongs to the token itself. The gated linear unit is one matrix in
    both, and the token that stands for masked patches in training has no use.
    """
    names = {"register_tokens": "reg_token"}
    state = {
        names.get(key, key).replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): value
        for key, value in state.items()
        if key != "mask_token"
    }
    if {"cls_token", "pos_embed", "reg_token"} <= state.keys():
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def ctranspath(state: State) -> State:
    """timm 0.5, in which a stage ends with its downsampling; since 0.9 the next one begins with it.

    Attention masks and indices follow from the size and are computed.
    """
    return {
        re.sub(r"^layers[.](\d)[.]downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", key): value
        for key, value in state.items()
        if not key.endswith(("attn_mask", "relative_position_index"))
    }


def keep(state: State) -> State:
    """KEEP's image side; its code calls timm's `gamma` of the layer scale `weight`."""
    return {
        re.sub(r"[.](ls[12])[.]weight$", r".\1.gamma", key): value
        for key, value in state.items()
        if key.startswith(("visual.", "visual_head."))
    }


def conch_v1(state: State) -> State:
    """CONCH's image side without its captioning and its projection into the space of text."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    return {key: value for key, value in state.items() if not re.match(r"proj_contrast|\w+_caption", key)}


def conch_v1_5(state: State) -> State:
    """CONCH v1.5, whose 14 × 14 positions are stretched to the 28 × 28 patches of 448 px."""
    positions = state.get("trunk.pos_embed")
    if positions is None or positions.shape[1] != 1 + 14 * 14:
        return state
    grid = positions[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2).float()
    # The authors' scale is a tenth of a patch over two; it shifts the samples, so it is part of the recipe.
    grid = F.interpolate(grid, scale_factor=(28.1 / 14, 28.1 / 14), mode="bicubic")
    stretched = grid.permute(0, 2, 3, 1).reshape(1, 28 * 28, -1).to(positions.dtype)
    return {**state, "trunk.pos_embed": torch.cat([positions[:, :1], stretched], dim=1)}


LAYOUTS: dict[str, Callable[[State], State]] = {
    "plain": plain,
    "dinov2": dinov2,
    "ctranspath": ctranspath,
    "keep": keep,
    "conch-v1": conch_v1,
    "conch-v1-5": conch_v1_5,
}
