"""Weights of the learned tissue model: where they come from, and a strict check that they fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from histill import device
from histill.errors import HistillError
from histill.provenance import file_digest

if TYPE_CHECKING:
    import torch

HUB_REPOSITORY, HUB_FILE, HUB_REVISION = "MahmoodLab/hest-tissue-seg", "deeplabv3_seg_v4.ckpt", "main"
_MEND = "name a local file of the weights in tissue.weights, or set tissue.method: colour"
_NAMED = 5  # keys that a message lists


class Weights(NamedTuple):
    """A file of weights that fits the model; `source` says where it came from, `digest` what it holds."""

    path: Path
    source: str
    digest: str


def prepare(options: dict[str, Any]) -> Weights:
    """Find the weights, on disk or on the hub, and check that they fit and that the device is there.

    Uses torch: call it in a process that forks no more.

    Parameters
    ----------
    options
        Config `tissue`: `weights`, `device`.

    Raises
    ------
    HistillError
        If they cannot be had, cannot be read safely, or do not fit.
    """
    device.resolve(options["device"])
    if options["weights"] is None:
        path, source = _download(), f"{HUB_REPOSITORY}/{HUB_FILE}@{HUB_REVISION}"
    else:
        path = Path(options["weights"]).expanduser()
        source = str(options["weights"])
    if not path.is_file():
        raise HistillError(f"tissue.weights: {path} is no file", mend=_MEND)
    weights = Weights(path, source, file_digest(path))
    load_model(weights)
    return weights


def load_model(weights: Weights) -> torch.nn.Module:
    """The model with these weights, ready to predict.

    Raises
    ------
    HistillError
        Naming the missing, the unexpected and the misshapen weights.
    """
    import torch

    with torch.device("meta"):  # shapes alone: random numbers for 40 million weights take seconds
        model = build()
    own, state = model.state_dict(), _plain(_load(weights.path), weights.path)
    # Counters of training steps, which files of old versions lack and prediction does not use.
    counters = {key: torch.zeros((), dtype=torch.int64) for key in own if key.endswith("num_batches_tracked")}
    state = counters | state
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    said = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in faults if keys]
    if said:
        raise HistillError(
            f"{weights.path}: these weights do not fit deeplabv3_resnet50 with two classes: {'; '.join(said)}",
            mend=_MEND,
        )
    model.load_state_dict(state, assign=True)
    return model.float().eval()


def build() -> torch.nn.Module:
    """torchvision's deeplabv3_resnet50 with two classes and without the auxiliary classifier."""
    from torchvision.models.segmentation import deeplabv3_resnet50

    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=2, aux_loss=False)


def _load(path: Path) -> Any:
    """The file's content; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and safetensors each have errors of their own for what is no such file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise HistillError(
            f"{path}: these weights cannot be read safely: {reason}",
            mend=f"save the plain state dict (torch.save or safetensors) and {_MEND}",
        ) from error


def _plain(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict under torchvision's names: Lightning's wrapper and prefix, and the auxiliary head, left off."""
    import torch

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise HistillError(f"{path}: holds no state dict", mend=_MEND)
    named = {str(key).removeprefix("model."): value for key, value in content.items()}
    return {key: value for key, value in named.items() if not key.startswith("aux_classifier.")}


def _download() -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    where = f"{HUB_REPOSITORY}/{HUB_FILE}"
    try:
        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE, revision=HUB_REVISION))
    except GatedRepoError:
        reason = "access has to be asked for on the hub, and HF_TOKEN set"
    except LocalEntryNotFoundError:
        reason = "the hub cannot be reached, and they are not in its cache"
    except EntryNotFoundError:
        reason = "the hub has no such file"
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
    raise HistillError(f"the weights {where} cannot be had: {reason}", mend=_MEND)


def _some(keys: list[str]) -> str:
    rest = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
