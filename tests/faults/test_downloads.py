"""Downloads that break off: half a file is never taken for whole, and the next attempt gets the rest."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading

import pytest

from tests.encoders.conftest import _handler, hub, install, shell, tiny  # noqa: F401

CONTENT = bytes(range(256)) * 4096  # 1 MiB; what it would be as weights does not matter here


@pytest.fixture
def cutting(hub):  # noqa: F811
    """A hub that breaks off in the middle of the weights as often as `cuts` says; at `hold` it hangs there instead."""
    hub.files["lab/tiny"] = {"model.safetensors": CONTENT}
    hub.cuts, hub.hold, hub.halfway = 0, threading.Event(), threading.Event()
    hub.hold.set()

    class Cutting(_handler(hub)):
        def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
            if body is not CONTENT or self.command != "GET" or hub.cuts == 0:
                return super().reply(status, body, **headers)
            hub.cuts -= 1
            self.send_response(status)
            for name, value in {**headers, "Content_Length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            hub.halfway.set()
            hub.hold.wait(60)
            self.close_connection = True

    hub.server.RequestHandlerClass = Cutting
    return hub


def fetched(shell, receipt) -> subprocess.CompletedProcess:  # noqa: F811
    return shell.run("encoders", "prefetch", "tiny", "--no-verify", "--out", str(receipt))


def is_whole(receipt) -> bool:
    (file,) = json.loads(receipt.read_text())["files"]
    return file["sha256"] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("cuts", [1, 1000])
def test_a_transfer_that_breaks_off(shell, cutting, tiny, tmp_path, cuts):  # noqa: F811
    receipt = tmp_path / "receipt.json"
    cutting.cuts = cuts
    done = fetched(shell, receipt)
    if done.returncode == 0:
        assert is_whole(receipt)
    else:
        assert "weights of encoder 'tiny' (lab/tiny) cannot be had" in done.stderr
        assert "mend: run 'histill encoders prefetch tiny'" in done.stderr
        assert "Traceback" not in done.stderr
        assert not receipt.exists()
    assert (done.returncode == 0) == (cuts == 1)
    cutting.cuts = 0
    done = fetched(shell, receipt)
    assert done.returncode == 0, done.stderr
    assert is_whole(receipt)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fetch_that_is_ended_halfway(shell, cutting, tiny, tmp_path, number):  # noqa: F811
    receipt = tmp_path / "receipt.json"
    cutting.cuts = 1
    cutting.hold.clear()
    command = [sys.executable, "-m", "histill", "encoders", "prefetch", "tiny", "--no-verify", "--out", str(receipt)]
    process = subprocess.Popen(command, cwd=shell.home, env=shell.environment, stderr=subprocess.DEVNULL)
    assert cutting.halfway.wait(60)
    process.send_signal(number)
    process.wait(20)
    assert not receipt.exists()
    cutting.hold.set()
    offline = shell.run("encoders", "prefetch", "tiny", "--no-verify", "--out", str(receipt), HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert not receipt.exists()
    done = fetched(shell, receipt)
    assert done.returncode == 0, done.stderr
    assert is_whole(receipt)
