"""Where torch computes: the CPU, or which GPU of a machine that several jobs share."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from histill.errors import HistillError

if TYPE_CHECKING:
    import torch

_DRIVER = Path("/proc/driver/nvidia/gpus")
_NVIDIA_SMI_SECONDS = 20.0

# Open lock files of leases. A forked child must not hold its parent's: they would outlive it.
_held: set[int] = set()


def resolve(device: str) -> torch.device:
    """`auto` is the first visible GPU, else the CPU. A GPU asked for by name must be there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise HistillError(f"device '{device}' is asked for, and torch sees no GPU", mend="set device: auto or cpu")
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise HistillError(
            f"device '{device}' is asked for, and the last GPU that torch sees is cuda:{torch.cuda.device_count() - 1}",
            mend="set device: auto, or a GPU that is there",
        )
    return place


@contextmanager
def lease(device: str, *, log: Callable[[str], None] = print) -> Iterator[torch.device]:
    """Where a job computes; of several GPUs one that no other job of this user has leased, for as long as it is open.

    A scheduler such as SLURM shows each job its own GPU in CUDA_VISIBLE_DEVICES, and there is nothing to choose. On a
    workstation all jobs see all GPUs: each takes a free one by a lock file per GPU in the folder for temporary files.
    When none is free it shares one, and says so. The system lets go of the lock when the process ends, however that
    happens; its forked children do not hold it.

    Parameters
    ----------
    device
        `auto`, `cpu`, `cuda`, or a GPU by number, as `cuda:1`, which is then used whoever else does. Of a machine with
        one visible GPU that one is used likewise.
    log
        Is told of a shared GPU.

    Raises
    ------
    HistillError
        If the GPU asked for is not there, or no lock file can be made.
    """
    import torch

    place = resolve(device)
    gpus = _visible() if place == torch.device("cuda") else []
    if len(gpus) < 2:
        yield place
        return
    index, free, handle = _take(gpus)
    _held.add(handle)
    try:
        if not free:
            log(f"all {len(gpus)} GPUs are in use by other jobs; this one shares GPU {gpus[index]}")
        yield torch.device("cuda", index)
    finally:
        if handle in _held:  # not in a forked child, which has closed it
            _held.remove(handle)
            os.close(handle)


def gpus_of_machine() -> int:
    """GPUs that a job started here could use, counted without torch; 0 if none, or if that cannot be told.

    CUDA_VISIBLE_DEVICES is heeded as CUDA does: what follows an entry that is no GPU is hidden, and of the instances of
    a partitioned GPU (MIG) a process sees the first alone.
    """
    mask = _mask()
    if mask == []:
        return 0
    installed = _installed()
    if mask is None:
        return installed
    shown = list(takewhile(lambda name: not name.isdigit() or int(name) < installed, mask))
    partitioned = any(name.startswith("MIG-") for name in shown)
    return min(1 if partitioned else len(shown), installed)


def _mask() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names: numbers, UUIDs or MIG instances; None if it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names = (name.strip() for name in value.split(","))
    return list(takewhile(lambda name: name.isdigit() or name.startswith(("GPU-", "MIG-")), names))


def _installed() -> int:
    """GPUs that the NVIDIA driver shows here; a container may be given fewer than the machine has."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True
        )
    except OSError:  # not installed
        return len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    except subprocess.SubprocessError:  # no driver that answers: torch finds no GPU either
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _visible() -> list[str]:
    """Names of the GPUs that torch sees, in its order: as CUDA_VISIBLE_DEVICES has them, so that jobs agree."""
    import torch

    number = torch.cuda.device_count()
    mask = _mask()
    return [str(index) for index in range(number)] if mask is None else mask[:number]


def _take(gpus: list[str]) -> tuple[int, bool, int]:
    """Lock a GPU, by turns where all are in use: its index, whether it was free, and the open lock file."""
    folder = Path(tempfile.gettempdir())
    for turn in count():
        for index, gpu in enumerate(gpus):
            # The files stay: one that is removed while a second job waits to open it would be locked twice.
            handle = _try_lock(folder / f"histill-{os.getuid()}-gpu-{gpu}-{turn}.lock")
            if handle is not None:
                return index, turn == 0, handle


def _try_lock(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise HistillError(
            f"{path}: the lock of a GPU cannot be made: {error.strerror}",
            mend="name a folder you may write to in TMPDIR, or a GPU in the config, as device: cuda:0",
        ) from error
    return handle


def _let_go_in_child() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
