"""What jobs ask a scheduler for."""

from __future__ import annotations

import os
import re

import pytest

from histill import demands, plan, stages
from histill.batches import assign
from histill.config import complete
from histill.errors import ConfigError


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A checked run on slides of given sizes in MB, one a patient and all in one batch, with changes of the config."""
    monkeypatch.chdir(tmp_path)

    def make(sizes=(1, 2), **config):
        rows = ["slide_id,patient_id,path"]
        for number, size in enumerate(sizes):
            with open(f"{number}.svs", "wb") as file:
                file.truncate(size * 10**6)  # sparse
            rows.append(f"s{number},p{number},{number}.svs")
        (tmp_path / "slides.csv").write_text("\n".join(rows) + "\n")
        base = {
            "results": "r",
            "cohort": {"slides": "slides.csv"},
            "batch_size": 1000,
            "methods": {"run": ["linear-slide"]},
        }
        return plan.load(base | config)

    return make


def only(run: plan.Plan) -> str:
    (batch,) = run.batches
    return batch


@pytest.mark.parametrize(
    ("sizes", "limit", "inspect", "features"),
    [
        ([1, 2], 3000, 1502, 2004),
        ([1, 800], 3000, 2300, 3600),
        ([9000, 1], 3000, 4000, 7000),
        ([9000], 600, 1600, 2200),
    ],
)
def test_memory_follows_the_largest_slide_up_to_its_limit(sizes, limit, inspect, features, planned):
    run = planned(sizes, slides={"memory_mb": limit})
    assert demands.memory_mb(run, "inspect", only(run)) == inspect
    assert demands.memory_mb(run, "tiles", only(run)) == inspect
    assert demands.memory_mb(run, "features", only(run)) == features


def test_memory_and_time_follow_the_encoders(planned):
    def asked(name, device):
        run = planned([0] * 10, features={"encoder": name, "allow_off_recipe": True, "device": device})
        return demands.memory_mb(run, "features", only(run)), demands.minutes(run, "features", only(run))

    assert asked("colour-texture", "auto") == (2000, 80)
    small, giant = asked("dinov2-s", "cuda"), asked("dinov2-g", "cuda")
    assert 5000 < small[0] < giant[0] - 8000
    assert 80 <= small[1] < giant[1]
    assert asked("dinov2-s", "cpu") > small


def test_time_follows_the_batch_and_is_a_day_at_most(planned):
    few, many = planned([0] * 4), planned([0] * 64)
    assert [demands.minutes(run, "tissue", only(run)) for run in (few, many)] == [38, 158]
    assert [demands.minutes(many, "tissue", only(many), attempt) for attempt in (2, 3)] == [316, 474]
    assert [demands.minutes(many, "train", attempt=attempt) for attempt in (1, 2, 3)] == [720, 1440, demands.DAY]
    assert demands.minutes(planned(training={"jobs": "per_fold"}), "train") == 240


def test_memory_follows_the_cohort_the_processes_and_the_attempt(planned):
    run = planned([0] * 500)
    assert demands.memory_mb(run, "train") == 3500
    assert demands.memory_mb(run, "train", attempt=3) == 10500
    assert demands.memory_mb(planned([0] * 500, training={"devices": 2}), "train") == 7000


def test_a_tissue_model_asks_for_what_a_network_needs(planned):
    colour, learned = planned(), planned(tissue={"method": "deeplabv3"})
    assert (
        demands.memory_mb(learned, "tissue", only(learned)) - demands.memory_mb(colour, "tissue", only(colour)) == 3000
    )


@pytest.mark.parametrize("stage", demands.DEMANDS)
def test_every_stage_asks_for_something_before_the_demo_is_painted(stage, tmp_path):
    run = plan.load({"results": str(tmp_path), "demo": {}})
    batch = next(iter(run.batches)) if demands.DEMANDS[stage].open_slides else None
    assert 1000 <= demands.memory_mb(run, stage, batch) <= 8000
    assert 15 <= demands.minutes(run, stage, batch) <= 720


def test_twenty_thousand_slides_are_313_jobs_a_stage():
    batches = assign([f"slide-{number:05d}" for number in range(20_000)], "auto")
    assert len(batches) == 313
    assert max(map(len, batches.values())) < 2 * 64


def test_memory_of_a_machine_is_that_of_its_container(tmp_path):
    groups, own = tmp_path / "groups", tmp_path / "own"
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6
    assert demands.memory_of_machine(groups, own) == everything
    (groups / "slurm" / "job_1").mkdir(parents=True)
    own.write_text("1:name=systemd:/x\n0::/slurm/job_1\n")
    (groups / "slurm" / "job_1" / "memory.max").write_text("max\n")
    assert demands.memory_of_machine(groups, own) == everything
    (groups / "slurm" / "memory.max").write_text("300000000\n")
    assert demands.memory_of_machine(groups, own) == 300
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text("200000000\n")
    assert demands.memory_of_machine(groups, own) == 200
    (groups / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # version 1 without a limit
    assert demands.memory_of_machine(groups, own) == 300
    (groups / "memory" / "slurm" / "job_2" / "step_0").mkdir(parents=True)
    (groups / "memory" / "slurm" / "job_2" / "memory.limit_in_bytes").write_text("100000000\n")
    own.write_text("4:cpu,cpuacct:/\n3:memory:/slurm/job_2/step_0\n1:name=systemd:/x:y\n")
    assert demands.memory_of_machine(groups, own) == 100


def test_names_of_a_cluster_change_no_recipe(planned):
    names = {"partition": "short,long", "gpu_partition": "a100_80.gb", "account": "lab-7"}
    here, there = planned(), planned(cluster=names)
    assert there.config["cluster"] == names
    assert [stages.recipe(stage, here.config) for stage in ("inspect", "features", "report")] == [
        stages.recipe(stage, there.config) for stage in ("inspect", "features", "report")
    ]


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a;b", "$(touch x)", "`x`", "a\nb", "a\n", "a'b", "--wrap=x", "{x}", "ä"]
)
def test_names_of_a_cluster_are_plain_words(name):
    keys = ("partition", "gpu_partition", "account")
    with pytest.raises(ConfigError) as error:
        complete({"results": "r", "demo": {}, "cluster": dict.fromkeys(keys, name)})
    assert all(any(f"cluster.{key}" in problem for problem in error.value.problems) for key in keys)


def test_the_table_of_the_docs_has_every_stage(root):
    text = (root / "docs" / "cluster.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+)[^|]*\| (\d+)", text, re.MULTILINE)
    assert rows == [(stage, str(demand.mb), str(demand.minutes)) for stage, demand in demands.DEMANDS.items()]


def test_every_rule_that_is_submitted_asks_for_something(root):
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        _, *rules = re.split(r"^ *rule (\w+):\n", path.read_text(), flags=re.MULTILINE)
        for name, body in zip(rules[::2], rules[1::2], strict=True):
            if "shell:" in body and "localrule: True" not in body:
                assert re.search(r'resources:\n +\*\*asks\("\w+"', body), f"{path.name}: rule {name}"
