from __future__ import annotations

import pytest

from histill import plan
from histill.errors import ConfigError
from histill.stages import MODELS


def options(tmp_path, **features):
    (tmp_path / "table.csv").write_text("slide_id,patient_id,a\ns,p,1\n")
    return {
        "results": str(tmp_path / "r"),
        "cohort": {},
        "features": {"source": "table", "table": str(tmp_path / "table.csv"), **features},
    }


def test_imports_need_a_name_of_their_own(tmp_path):
    assert plan.load(options(tmp_path, encoder="elsewhere")).imports
    for features in ({}, {"encoder": "uni"}):
        with pytest.raises(ConfigError, match="a name of their own"):
            plan.load(options(tmp_path, **features))


def test_methods_that_need_rna_are_named(tmp_path):
    (tmp_path / "clinical.csv").write_text("patient_id,dx\n" + "".join(f"p{i},{'ab'[i % 2]}\n" for i in range(12)))
    config = options(tmp_path, encoder="elsewhere")
    config["cohort"] = {"clinical": str(tmp_path / "clinical.csv")}
    config["tasks"] = {"dx": {"type": "classification", "label": "dx"}}
    with pytest.raises(ConfigError) as caught:
        plan.load(config)
    named = [method for method in MODELS if f"'{method}' needs transcriptomes" in str(caught.value)]
    assert named == ["disentangled", "linear-rna", "linear-both"]
    assert plan.load({**config, "methods": {"run": ["wsi-only", "linear-slide"]}})


def test_demo_plan_knows_its_files(tmp_path):
    checked = plan.load({"results": str(tmp_path), "demo": {}})
    assert sum(len(slides) for slides in checked.batches.values()) == len(checked.sheets.slides) >= 48
    assert checked.encoder_gpus() == 0
    assert [checked.training_gpus(method) for method in ("disentangled", "abmil", "linear-both")] == [1, 1, 0]
    assert checked.prediction_gpus() == 1
    assert checked.tissue_gpus() == 0
    assert checked.slide_memory() == checked.config["slides"]["memory_mb"] + 1000
    assert all(path.startswith(str(tmp_path)) for path in checked.sheet_files())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("device", "gpus"), [("auto", 1), ("cuda", 1), ("cpu", 0)])
def test_finding_tissue_by_a_model_asks_for_a_gpu(device, gpus, tmp_path):
    config = {"results": str(tmp_path), "demo": {}, "tissue": {"method": "deeplabv3", "device": device}}
    assert plan.load(config).tissue_gpus() == gpus
