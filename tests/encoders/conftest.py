"""A hub that is a small web server of this machine, plug-in packages with real metadata, and small networks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from histill.encoders import plugins

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has and what it was asked.

    Attributes
    ----------
    files
        Repository -> file name -> content.
    gated
        Repositories that hand out nothing without the right token.
    token
        The right token.
    lies
        Files whose stated sha256 is wrong, as after a damaged transfer.
    asked
        Paths of all requests, in order.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_rightrightright"
    lies: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None
    commit: str = COMMIT

    @cached_property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def info(self, repository: str) -> dict:
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                "lfs": {"sha256": self.stated(name, content), "size": len(content), "pointerSize": 130},
            }
            for name, content in self.files[repository].items()
        ]
        gate = "manual" if repository in self.gated else False
        return {"id": repository, "sha": COMMIT, "gated": gate, "private": False, "siblings": siblings, "tags": []}

    def stated(self, name: str, content: bytes) -> str:
        return "f" * 64 if name in self.lies else hashlib.sha256(content).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.split("?")[0].strip("/")
            hub.asked.append(f"{self.command} {path}")
            kind, _, rest = path.removeprefix("api/").partition("/")
            if path.startswith("api/") and kind in ("models", "datasets"):
                repository, _, revision = rest.partition("/revision/")
                if repository not in hub.files:
                    return self.reply(404, X_Error_Code="RepoNotFound")
                if revision not in ("", "main", COMMIT):
                    return self.reply(404, X_Error_Code="RevisionNotFound")
                return self.reply(200, json.dumps(hub.info(repository)).encode(), Content_Type="application/json")
            repository, _, rest = path.removeprefix("datasets/").partition("/resolve/")
            _, _, name = rest.partition("/")
            content = hub.files.get(repository, {}).get(name)
            if content is None:
                return self.reply(404, X_Error_Code="EntryNotFound")
            if repository in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="access is restricted")
            etag = hub.stated(name, content)
            return self.reply(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT, X_Linked_Size=str(len(content)))

        do_HEAD = do_GET

        def log_message(self, *_) -> None:
            """Quiet."""

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty hub on a free port of 127.0.0.1."""
    made = Hub()
    made.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    thread = Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@dataclass
class Shell:
    """Commands of histill in processes of their own, with a cache of their own."""

    home: Path
    environment: dict[str, str]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return self.python("-m", "histill", *arguments, **environment)

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.home,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    """A user with an empty cache, no token, the fake hub, and the plug-ins of `plugin_folder`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    return Shell(
        tmp_path,
        {
            **clean,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.address,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        },
    )


def write_plugin(site: Path, name: str, code: str, version: str = "1.0") -> None:
    """An installed distribution, as pip leaves it: a module and its metadata with the entry point."""
    site.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(textwrap.dedent(code))
    metadata = site / f"{module}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[histill.encoders]\n{module} = {module}\n")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install plug-ins for this process and for `shell`: name -> code."""

    def add(distributions: Mapping[str, str]) -> None:
        for name, code in distributions.items():
            write_plugin(tmp_path / "site", name, code)
            monkeypatch.delitem(sys.modules, name.replace("-", "_"), raising=False)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        plugins.load.cache_clear()

    yield add
    plugins.load.cache_clear()
    for module in [name for name in sys.modules if (tmp_path / "site" / f"{name}.py").exists()]:
        del sys.modules[module]


TINY = """
    recipes = {
        "tiny": {
            "builder": "timm", "hub": "lab/tiny", "architecture": "test_vit", "arguments": {"num_classes": 0},
            "ignore": ["^head[.]"], "parameters": 0.3, "dim": 64, "input": 160, "resize": 160, "mean": [0.5, 0.5, 0.5],
            "std": [0.2, 0.2, 0.2], "mpp": [0.2, 2.2], "licence": "MIT", "source": "a test",
        }
    }
"""


@pytest.fixture
def tiny(install) -> None:
    """A plug-in whose encoder `tiny` is a small timm network of the repository lab/tiny."""
    install({"tiny-encoders": TINY})


@pytest.fixture(scope="session")
def tiny_weights() -> bytes:
    """Weights of the encoder `tiny`, as safetensors."""
    import timm
    import torch
    from safetensors.torch import save

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return save(timm.create_model("test_vit", num_classes=0).state_dict())
