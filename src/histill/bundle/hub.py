"""Bundles on the hub, through huggingface_hub: its settings and its token (HF_TOKEN or a login) hold."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histill.bundle import manifest
from histill.bundle.bundle import Bundle
from histill.encoders.hub import has_token, is_offline
from histill.errors import HistillError
from histill.provenance import atomic_folder

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{6,}")
_MEMBERS = (f"members/*/{name}" for name in manifest.MEMBER_FILES)
_FILES = [manifest.MANIFEST, manifest.CARD, manifest.REFERENCE, *_MEMBERS]  # of any bundle, as patterns


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a bundle in one commit, in the place of the one the repository held; returns the commit's address.

    The repository is made where there is none.

    Raises
    ------
    HistillError
        Where the folder is no whole bundle, the hub refuses, or a `private` repository is asked for and it is public.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    bundle = Bundle.read(folder)
    _check_name(repository)
    with _explained(repository, "cannot be written"):
        api = HfApi()
        api.create_repo(repository, private=private or None, repo_type="model", exist_ok=True)
        public = private and not api.repo_info(repository, repo_type="model").private
    if public:
        raise HistillError(f"repository {repository} exists and is public", mend="make it private, or name another")
    with _explained(repository, "cannot be written"):
        done = api.upload_folder(
            repo_id=repository,
            repo_type="model",
            folder_path=folder,
            allow_patterns=[manifest.MANIFEST, *manifest.names(len(bundle.members))],
            delete_patterns=_FILES,
            commit_message=f"Bundle {bundle.about['digest']} of histill {bundle.about['histill']}",
        )
    return str(done.commit_url)


def pull(repository: str, out: str | Path, *, revision: str | None = None) -> str:
    """Download a bundle of the hub into a new folder and check it; returns the commit it is of.

    Raises
    ------
    HistillError
        Where the folder exists, the repository cannot be read, or what it holds is no whole bundle. Nothing is left
        then.
    """
    from huggingface_hub import HfApi, snapshot_download

    out = Path(out)
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise HistillError(f"{out} exists", mend="name another place with --out, or remove it")
    _check_name(repository)
    with atomic_folder(out) as part:
        with _explained(repository, "cannot be read"):
            commit = HfApi().repo_info(repository, repo_type="model", revision=revision).sha
            snapshot_download(repository, revision=commit, local_dir=part, allow_patterns=_FILES)
        shutil.rmtree(part / ".cache", ignore_errors=True)  # where the download kept its notes
        try:
            Bundle.read(part)
        except HistillError as error:
            message = f"repository {repository} at {commit[:12]} holds no bundle that can be used: {error.message}"
            raise HistillError(message.replace(str(part), str(out)), mend="ask whoever pushed it") from None
    return commit


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise HistillError(
            f"'{repository}' is no name of a repository", mend="give OWNER/NAME, as on the hub"
        ) from None


@contextmanager
def _explained(repository: str, what: str) -> Iterator[None]:
    """Errors of the hub as what the user can do about them; no token is ever shown."""
    from huggingface_hub import errors

    def refused(why: str, mend: str) -> HistillError:
        return HistillError(f"repository {repository} {what}: {why}", mend=mend)

    token = "log in with 'hf auth login', or set HF_TOKEN to a token with access to it"
    try:
        yield
    except errors.GatedRepoError:
        raise refused("it is gated", f"accept its terms on the hub, then {token}") from None
    except errors.RevisionNotFoundError:
        raise refused("it has no such revision", "give a branch, tag or commit of it with --revision") from None
    except errors.RepositoryNotFoundError:
        raise refused("it does not exist, or is hidden from the token in use", f"check the name; or {token}") from None
    except errors.OfflineModeIsEnabled:
        raise refused("HF_HUB_OFFLINE is set", "unset it") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            why = "the token in use may not" if has_token() else "no token was found"
            raise refused(why, token) from None
        raise refused(f"the hub answers {status}: {_first_line(error)}", "try again later") from None
    except Exception as error:  # transport errors are of the HTTP library in use, and of many types
        mend = "unset HF_HUB_OFFLINE" if is_offline() else "check the connection, or HF_ENDPOINT"
        raise refused(_first_line(error), mend) from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return _TOKEN.sub("hf_***", f"{type(error).__name__}: {text[0]}" if text else type(error).__name__)
