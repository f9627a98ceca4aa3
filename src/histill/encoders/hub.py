"""The hub: what a repository holds, what of it is in the cache, and fetching the rest.

Everything goes through huggingface_hub, so its settings hold: HF_HOME and HF_HUB_CACHE (where the cache lies), HF_TOKEN
or a login, HF_ENDPOINT (a mirror), HF_HUB_OFFLINE.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from histill.encoders.recipes import EncoderRecipe
from histill.encoders.weights import choose, wanted
from histill.errors import HistillError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{6,}")
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Repository:
    """What the hub says of a repository.

    Attributes
    ----------
    commit
        Commit that the recipe's revision stands for now.
    gated
        Whether terms must be accepted before it hands files out.
    files
        Name -> (bytes, sha256); None where the hub does not say.
    """

    commit: str
    gated: bool
    files: dict[str, tuple[int | None, str | None]]


def ask(recipe: EncoderRecipe) -> Repository:
    """Ask the hub about a recipe's repository; nothing is downloaded."""
    from huggingface_hub import HfApi

    with _explained(recipe):
        info = HfApi().repo_info(
            recipe.hub,
            repo_type=recipe.repo_type,
            revision=recipe.revision,
            files_metadata=True,
            timeout=_TIMEOUT_S,
        )
    files = {}
    for item in info.siblings or []:
        lfs = getattr(item, "lfs", None)
        files[item.rfilename] = (item.size, lfs.sha256 if lfs else None)
    return Repository(info.sha, bool(getattr(info, "gated", False)), files)


def fetch(recipe: EncoderRecipe, repository: Repository) -> tuple[Path, list[str]]:
    """Download what the encoder needs into the hub's cache: snapshot folder, names below it."""
    from huggingface_hub import constants, hf_hub_download

    names = choose(recipe, repository.files)
    if not names:
        raise HistillError(
            f"repository {recipe.hub} at {repository.commit[:12]} does not hold the weights of '{recipe.name}' "
            f"({wanted(recipe)})",
            mend="download them by hand and name them in features.weights",
        )
    missing = [name for name in names if cached_file(recipe, name, repository.commit) is None]
    _check_space(recipe, sum(repository.files[name][0] or 0 for name in missing), Path(constants.HF_HUB_CACHE))
    with _explained(recipe):
        # By the recipe's own revision, so that the cache notes what it stands for and finds it again offline.
        first = hf_hub_download(recipe.hub, names[0], repo_type=recipe.repo_type, revision=recipe.revision)
        folder = _folder(Path(first), names[0])
        for name in names[1:]:
            hf_hub_download(recipe.hub, name, repo_type=recipe.repo_type, revision=folder.name)
    return folder, names


def cached(recipe: EncoderRecipe) -> tuple[str, Path, list[str]] | None:
    """(commit, snapshot folder, names) of weights that lie whole in the cache, or None. Asks nobody."""
    marker = "config.json" if recipe.builder == "transformers" else None
    for name in [marker] if marker else [recipe.file] if recipe.file else ["model.safetensors", "pytorch_model.bin"]:
        path = cached_file(recipe, name, recipe.revision)
        if path is None:
            continue
        folder = _folder(path, name)
        found = (item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file())
        names = choose(recipe, found)
        if names:
            return folder.name, folder, names
    return None


def cached_file(recipe: EncoderRecipe, name: str, revision: str | None) -> Path | None:
    """Where a file of a revision lies in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(recipe.hub, name, revision=revision, repo_type=recipe.repo_type)
    return Path(path) if isinstance(path, str) else None


def has_token() -> bool:
    """Whether huggingface_hub finds a token; the token itself is never shown."""
    from huggingface_hub import get_token

    return bool(get_token())


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE keeps huggingface_hub from the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def is_pinned(recipe: EncoderRecipe) -> bool:
    """Whether the recipe names a commit, and not a branch or nothing."""
    return bool(recipe.revision and _COMMIT.fullmatch(recipe.revision))


def _folder(path: Path, name: str) -> Path:
    """The snapshot folder of a file called `name` below it."""
    return path.parents[name.count("/")]


def _check_space(recipe: EncoderRecipe, needed: int, cache: Path) -> None:
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise HistillError(
            f"weights of encoder '{recipe.name}' need {needed / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB free",
            mend="make room, or set HF_HOME to a folder on another disk",
        )


@contextmanager
def _explained(recipe: EncoderRecipe) -> Iterator[None]:
    """Errors of the hub as what the user can do about them."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        why = "the token has no access to it" if has_token() else "no token was found"
        raise _error(
            recipe,
            f"the repository is gated, and {why}",
            f"accept its terms on the hub (licence {recipe.licence}), then log in with 'hf auth login' or set HF_TOKEN",
        ) from None
    except errors.RevisionNotFoundError:
        raise _error(recipe, f"it has no revision {recipe.revision}", "name local weights: features.weights") from None
    except errors.RepositoryNotFoundError:
        raise _error(
            recipe,
            "the repository does not exist, or is hidden from the token in use",
            "check the token (HF_TOKEN), or name the weights in features.weights",
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        why = "HF_HUB_OFFLINE is set" if is_offline() else _first_line(error)
        raise _error(recipe, f"{why}, and they are not in the cache", _elsewhere(recipe)) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _error(recipe, "the disk is full", "make room, or set HF_HOME to a folder on another disk") from None
        raise _error(recipe, _first_line(error), _elsewhere(recipe)) from None
    except Exception as error:  # transport errors are of the HTTP library in use, and of many types
        raise _error(recipe, _first_line(error), _elsewhere(recipe)) from None


def _error(recipe: EncoderRecipe, why: str, mend: str) -> HistillError:
    return HistillError(f"weights of encoder '{recipe.name}' ({recipe.hub}) cannot be had: {why}", mend=mend)


def _elsewhere(recipe: EncoderRecipe) -> str:
    return (
        f"run 'histill encoders prefetch {recipe.name}' where the hub can be reached, with the same HF_HOME; or name "
        "the downloaded weights in features.weights"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return _TOKEN.sub("hf_***", f"{type(error).__name__}: {text[0]}" if text else type(error).__name__)
