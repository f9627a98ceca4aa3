"""Where torch computes, with GPUs that are only said to be there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
import torch

from histill import device
from histill.errors import HistillError


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Says how many GPUs torch sees, and under which mask; locks lie in a folder of the test's own."""

    def say(number: int, mask: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        if mask is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return say


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Puts an `nvidia-smi` on the path that lists GPUs, or fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def say(number: int, status: int = 0, partitioned: bool = False) -> None:
        lines = []
        for index in range(number):
            lines.append(f"GPU {index}: NVIDIA A100 (UUID: GPU-{index})")
            if partitioned:
                lines += [f"  MIG 3g.20gb     Device  {part}: (UUID: MIG-{index}{part})" for part in range(2)]
        script = "\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), f"exit {status}"])
        (folder / "nvidia-smi").write_text(script + "\n")
        (folder / "nvidia-smi").chmod(0o755)

    return say


def leased(stack: ExitStack, said: list[str], name: str = "auto") -> str:
    return str(stack.enter_context(device.lease(name, log=said.append)))


def test_jobs_take_a_gpu_each_and_share_when_none_is_free(gpus):
    gpus(3)
    said: list[str] = []
    with ExitStack() as stack:
        assert [leased(stack, said) for _ in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]
        assert not said
        assert [leased(stack, said) for _ in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
        assert said[0] == "all 3 GPUs are in use by other jobs; this one shares GPU 0"
        assert len(said) == 4
    with ExitStack() as stack:
        assert leased(stack, said, "cuda") == "cuda:0"
    assert len(said) == 4


def test_a_gpu_that_becomes_free_is_taken_again(gpus):
    gpus(2)
    with ExitStack() as others:
        assert leased(others, []) == "cuda:0"
        with ExitStack() as stack:
            assert leased(stack, []) == "cuda:1"
        with suppress(ZeroDivisionError), device.lease("auto"):
            raise ZeroDivisionError
        assert leased(others, []) == "cuda:1"


def test_jobs_with_other_masks_agree_on_a_gpu(gpus):
    with ExitStack() as stack:
        gpus(2, mask="2,GPU-7")
        assert leased(stack, []) == "cuda:0"
        gpus(3, mask="1,2,GPU-7")
        assert leased(stack, []) == "cuda:0"
        assert leased(stack, []) == "cuda:2"
        said: list[str] = []
        gpus(2, mask="GPU-7,2")
        assert leased(stack, said) == "cuda:0"
        assert said == ["all 2 GPUs are in use by other jobs; this one shares GPU GPU-7"]


@pytest.mark.parametrize(
    ("number", "name", "wanted"),
    [(0, "auto", "cpu"), (2, "cpu", "cpu"), (1, "auto", "cuda"), (1, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_where_nothing_is_to_choose_nothing_is_locked(number, name, wanted, gpus, tmp_path):
    gpus(number)
    for _ in range(2):
        with device.lease(name) as first, device.lease(name) as second:
            assert (str(first), str(second)) == (wanted, wanted)
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused(gpus):
    gpus(0)
    with pytest.raises(HistillError, match="torch sees no GPU"):
        device.resolve("cuda")
    gpus(2)
    assert device.resolve("cuda:1").index == 1
    with pytest.raises(HistillError, match="'cuda:2' is asked for, and the last GPU that torch sees is cuda:1"):
        device.resolve("cuda:2")


def test_a_folder_without_room_for_locks_is_named(gpus, tmp_path, monkeypatch):
    gpus(2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(HistillError, match=r"absent/histill-\d+-gpu-0-0.lock: the lock of a GPU cannot be made"):
        device.lease("auto").__enter__()


HOLDER = """
import os, sys, time, torch
torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 2)
from histill import device
with device.lease("auto", log=lambda text: None) as place:
    if {forks} and os.fork() == 0:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print(place, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("forks", [False, True])
def test_a_killed_job_frees_its_gpu_even_if_a_child_of_it_lives_on(forks, gpus, tmp_path):
    gpus(2)
    command = [sys.executable, "-c", HOLDER.format(forks=forks)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline().strip() == "cuda:0"
        with device.lease("auto") as place:
            assert str(place) == "cuda:1"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(30) == -9
        with device.lease("auto") as place:
            assert str(place) == "cuda:0"
    finally:
        os.killpg(process.pid, 9) if forks else process.kill()
        process.wait()


def test_jobs_that_start_together_take_different_gpus(gpus):
    gpus(8)
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        leases = [device.lease("auto") for _ in range(8)]
        places = list(pool.map(lambda lease: str(lease.__enter__()), leases))
        for lease in leases:
            stack.push(lease)
        assert sorted(places) == [f"cuda:{index}" for index in range(8)]


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("NoDevFiles", 0),
        ("1", 1),
        ("3, 0", 2),
        ("0,-1,2", 1),
        ("0,9,1", 1),
        ("GPU-ab,GPU-cd", 2),
        ("MIG-ab,MIG-cd", 1),
    ],
)
def test_gpus_are_counted_as_cuda_shows_them(mask, wanted, machine, monkeypatch):
    machine(4)
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert device.gpus_of_machine() == wanted


def test_a_partitioned_gpu_counts_once(machine):
    machine(2, partitioned=True)
    assert device.gpus_of_machine() == 2


def test_a_driver_that_does_not_answer_is_no_gpu(machine, monkeypatch):
    machine(2, status=9)
    assert device.gpus_of_machine() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert device.gpus_of_machine() == 0


def test_without_nvidia_smi_the_kernel_module_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device, "_DRIVER", tmp_path / "gpus")
    assert device.gpus_of_machine() == 0
    for name in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert device.gpus_of_machine() == 2


def test_counting_gpus_loads_no_torch():
    code = "import sys; from histill import device; device.gpus_of_machine(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
