"""Dependencies point one way, and light things stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
import time

import pytest

# Left to right: a module imports from its own layer or one before it.
LAYERS = [
    {"errors", "storage", "provenance", "redact", "software", "__init__"},
    {"config", "stages", "forked", "isolation", "batches", "device", "subspaces", "magnifications"},
    {"cohort", "slides", "encoders", "transcriptome", "demo"},
    {"plan", "lineage", "demands", "features"},
    {"data"},
    {"methods"},
    {"evaluation"},
    {"bundle", "privacy"},
    {"report", "trace"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The cohort stage asks the transcriptome stage who has RNA; both are of one layer.


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "histill":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("histill.")}
    return found & LEVEL.keys()


def test_imports_point_one_way(root):
    package = root / "src" / "histill"
    wrong = []
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        assert own in LEVEL, f"{own} is in no layer"
        wrong += [
            f"{path.relative_to(package)} imports {other}"
            for other in imported(ast.parse(path.read_text()))
            if LEVEL[other] > LEVEL[own]
        ]
    assert not wrong


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(m for m in sys.modules if '.' not in m))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "from histill.slides import inspect, segment, tile",
        "from histill.transcriptome import stage",
        "from histill.cohort import stage",
        "from histill import plan; plan.load({'results': 'r', 'demo': {}})",
        "from histill.features import extract, imports",
    ],
)
def test_no_stage_before_training_imports_torch(statement):
    assert not modules_after(statement) & {"torch", "timm", "lightning"}


def test_slide_stages_need_no_pandas():
    assert not modules_after("from histill.slides import inspect, segment, tile") & {"pandas", "anndata", "sklearn"}


def test_help_is_quick(root):
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "histill", "--help"], capture_output=True, check=True, cwd=root)
        return time.perf_counter() - start

    # What makes it slow is a heavy import; the modules are what is asserted, the clock is only printed.
    print(f"histill --help: {min(seconds() for _ in range(3)):.2f} s")
    assert not modules_after("import histill.cli") & {"numpy", "pandas", "cv2", "jsonschema", "yaml", "torch"}
