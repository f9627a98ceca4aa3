"""Lanes: the networks of one device, which share the tiles of a batch there.

Networks run on a fixed number of tiles at a time, whatever a batch holds: kernels are chosen by shape, so a tile's
vector then does not depend on its place nor on its neighbours.

On a GPU nothing here waits for it but the staging buffers, used in turn. A copy stream brings the next batch over while
the compute stream is busy with the last one:

    host     fill staging A ── fill staging B ── wait for copy A, fill A ── …
    copy     A to device ── (cut) ── B to device ── …
    compute  wait for copy ── cut ── networks, results to the host ── wait for copy ── cut ── …
"""

from __future__ import annotations

import ctypes
import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from histill.encoders.network import NetworkEncoder
from histill.encoders.passes import CHILDREN, TILES, averages, quarters
from histill.errors import HistillError

# Tiles that go through a network at a time on a CPU: with 60 a MobileNetV3 takes 6 % longer a tile, with 12 16 %.
_CPU_TILES = 20
_STAGING = 2
_NO_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)


def open_lanes(
    networks: dict[str, NetworkEncoder], *, size: int, fields: int, warnings: list[str]
) -> list[CpuLane | CudaLane]:
    """A lane for each device, GPUs first.

    Parameters
    ----------
    size, fields
        Side of a tile in pixels, fields of a batch.
    warnings
        Takes what the user should know.
    """
    devices = sorted(
        {encoder.device for encoder in networks.values()}, key=lambda device: (device.type == "cpu", str(device))
    )
    lanes = []
    for device in devices:
        own = {name: encoder for name, encoder in networks.items() if encoder.device == device}
        lane = CudaLane if device.type == "cuda" else CpuLane
        try:
            lanes.append(lane(own, size=size, fields=fields, warnings=warnings))
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise HistillError(
                f"no memory on {device} for a batch of {TILES * fields} tiles of {size} px", mend=_mend()
            ) from error
    return lanes


class Lane:
    """Networks of one device.

    Parameters
    ----------
    networks
        Name -> encoder.
    """

    def __init__(self, networks: dict[str, NetworkEncoder], *, size: int, fields: int, warnings: list[str]):
        self._networks, self._warnings = networks, warnings
        self._device = next(iter(networks.values())).device
        self._tiles = torch.empty(fields, TILES, size, size, 3, dtype=torch.uint8, device=self._device)
        limit = _CPU_TILES if self._device.type == "cpu" else TILES * fields
        self._limits = dict.fromkeys(networks, limit)

    def _encode(self, name: str, count: int) -> torch.Tensor:
        """The tiles of the first `count` fields through a network: float32 [F, 5, dim] there, the rest undefined."""
        encoder = self._networks[name]
        tiles = self._tiles.flatten(0, 1).permute(0, 3, 1, 2)
        total, start = len(tiles), 0
        vectors = torch.empty(total, encoder.dim, device=self._device)
        while start < TILES * count:
            step = math.ceil(total / math.ceil(total / self._limits[name]))
            start = min(start, total - step)  # the last tiles once more, rather than fewer of them
            found = _forward(encoder, tiles[start : start + step])
            if found is None:
                self._halve(name, step)
                continue
            vectors[start : start + step] = found
            start += step
        return vectors.view(-1, TILES, encoder.dim)

    def _halve(self, name: str, step: int) -> None:
        if step == 1:
            raise HistillError(f"encoder '{name}': memory of {self._device} runs out with a single tile", mend=_mend())
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._limits[name] = step // 2
        self._warnings.append(
            f"encoder '{name}': memory of {self._device} ran out with {step} tiles at a time; "
            f"it goes on with {step // 2} (a smaller features.batch_size avoids this)"
        )


class CpuLane(Lane):
    """Networks on the CPU: the work is done when `submit` returns."""

    def __init__(self, networks: dict[str, NetworkEncoder], *, size: int, fields: int, warnings: list[str]):
        super().__init__(networks, size=size, fields=fields, warnings=warnings)
        self._seconds = 0.0
        _keep_freed_memory()

    def busy_seconds(self) -> float:
        """By the host's clock."""
        return self._seconds

    @torch.inference_mode()
    def submit(self, fields: np.ndarray, count: int) -> tuple[dict[str, np.ndarray], Callable[[], None]]:
        """Encoder -> vectors float32 [F, 5, dim] of `histill.encoders.passes.Encoded`, and what waits for them."""
        start = time.perf_counter()
        tiles = self._tiles.numpy()
        quarters(fields[:count], out=tiles[:count, :CHILDREN])
        averages(fields[:count], out=tiles[:count, CHILDREN])
        vectors = {name: self._encode(name, count).numpy() for name in self._networks}
        self._seconds += time.perf_counter() - start
        return vectors, _done


class CudaLane(Lane):
    """Networks on a GPU: `submit` leaves the work in its queue."""

    def __init__(self, networks: dict[str, NetworkEncoder], *, size: int, fields: int, warnings: list[str]):
        super().__init__(networks, size=size, fields=fields, warnings=warnings)
        shape = (fields, 2 * size, 2 * size, 3)
        self._staging = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(_STAGING)]
        self._copied = [torch.cuda.Event(blocking=True) for _ in range(_STAGING)]  # out of the staging buffer
        self._turn = 0
        self._fields = torch.empty(shape, dtype=torch.uint8, device=self._device)
        self._cut = torch.cuda.Event()  # the fields on the device are used up
        self._copying = torch.cuda.Stream(self._device)
        # The fields were allocated for the compute stream, and what had their memory before may still be at work there.
        self._copying.wait_stream(torch.cuda.current_stream(self._device))
        self._fields.record_stream(self._copying)
        self._seconds = 0.0
        self._running: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def busy_seconds(self) -> float:
        """By the GPU's clock, of the batches that are done."""
        while self._running and self._running[0][1].query():
            start, end = self._running.popleft()
            self._seconds += start.elapsed_time(end) / 1000
        return self._seconds

    @torch.inference_mode()
    def submit(self, fields: np.ndarray, count: int) -> tuple[dict[str, np.ndarray], Callable[[], None]]:
        """Encoder -> vectors float32 [F, 5, dim] of `histill.encoders.passes.Encoded`, and what waits for them."""
        start, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        compute = torch.cuda.current_stream(self._device)
        copied = self._upload(fields, count)
        compute.wait_event(copied)
        start.record(compute)
        cut_in_torch(self._fields, self._tiles)
        self._cut.record(compute)
        vectors = {name: self._download(self._encode(name, count)) for name in self._networks}
        end.record(compute)
        self._running.append((start, end))
        return vectors, end.synchronize

    def _upload(self, fields: np.ndarray, count: int) -> torch.cuda.Event:
        """Queue the copy to the device; the event says that it is done."""
        staging, copied = self._staging[self._turn], self._copied[self._turn]
        self._turn = (self._turn + 1) % _STAGING
        copied.synchronize()  # of the last but one batch
        np.copyto(staging.numpy()[:count], fields[:count])
        self._copying.wait_event(self._cut)  # of the last batch
        with torch.cuda.stream(self._copying):
            self._fields[:count].copy_(staging[:count], non_blocking=True)
        copied.record(self._copying)
        return copied

    def _download(self, vectors: torch.Tensor) -> np.ndarray:
        """Queue the copy to the host, behind the network; what is in the array counts only after that."""
        return torch.empty(vectors.shape, pin_memory=True).copy_(vectors, non_blocking=True).numpy()


def cut_in_torch(fields: torch.Tensor, tiles: torch.Tensor) -> None:
    """`quarters` and `averages` of uint8 fields [F, 2·S, 2·S, 3] into tiles [F, 5, S, S, 3], on their device."""
    count, size = len(fields), fields.shape[1] // 2
    split = fields.view(count, 2, size, 2, size, 3).permute(0, 1, 3, 2, 4, 5)
    tiles[:, :CHILDREN].view(split.shape).copy_(split)
    pairs = fields.view(count, size, 2, size, 2, 3).to(torch.int16)
    tiles[:, CHILDREN] = ((pairs.sum((2, 4), dtype=torch.int16) + 2) >> 2).to(torch.uint8)


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def _forward(encoder: NetworkEncoder, tiles: torch.Tensor) -> torch.Tensor | None:
    """Vectors of tiles; None when memory ran out."""
    try:
        return encoder.forward(tiles)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
    return None  # only here are the frames of the error, and the tensors in them, gone


def _keep_freed_memory() -> None:
    """Have the C library keep the memory of activations for the next layer instead of giving it back.

    Else every layer gets fresh pages that the kernel has to clear: a MobileNetV3 takes 1.5 times as long, a ResNet-18
    1.07 times. Other C libraries than glibc have no such call.
    """
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(trim, 1 << 30)
        mallopt(mmap, 32 << 20)  # the largest value that every version takes


def _done() -> None:
    """Nothing to wait for."""


def _mend() -> str:
    return "lower features.batch_size, free the device, or set features.device to another one"
