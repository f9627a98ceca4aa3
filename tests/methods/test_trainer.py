"""The training loop: a run that is killed ends like one that is not, ranks agree, slides count as patients do."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from histill.cohort.tasks import Task
from histill.config import complete
from histill.data.bags import BagReader, Instances
from histill.data.fold import Cohort, Labels
from histill.data.module import BagDataModule, BagDataset
from histill.data.scaling import WinsorizedScaler
from histill.errors import HistillError
from histill.features.store import Group, write_store
from histill.methods import logs, resume, trainer
from histill.methods import train as train_stage
from histill.methods.baselines.abmil import ABMIL
from histill.methods.checkpoint import Checkpoint
from histill.methods.module import SupervisedModule
from histill.methods.predict import predict
from histill.methods.progress import TrainingProgress
from histill.methods.resume import RunState
from histill.methods.slides import mean_over_slides
from histill.methods.trainer import Run, fit

PATIENTS, DIM, LEVELS = 20, 6, {"10x": 9, "20x": 20}


class Remembering(SupervisedModule):
    """A module with a buffer of its own that its loss, and so its result, depends on."""

    def __init__(self, *arguments, **training):
        super().__init__(*arguments, **training)
        self.register_buffer("smoothed", torch.zeros(()), persistent=False)

    def extra_losses(self, output, batch):
        norm = output["logits"]["20x"].square().mean()
        self.smoothed.copy_(0.9 * self.smoothed + 0.1 * (norm.detach() + random.random() + np.random.rand()))
        return {"extra": self.smoothed * output["logits"]["10x"].square().sum(dim=1)}


def write_cohort(folder: Path, slides: int = 1) -> None:
    generator = np.random.default_rng(0)
    for patient in range(PATIENTS):
        for slide in range(slides):
            groups = {}
            for level, count in LEVELS.items():
                x = generator.normal(size=(count, DIM)) + (patient % 2)
                groups[level] = Group(x.astype(np.float16), np.zeros((count, 2)), {"valid": np.ones(count, bool)})
            write_store(folder / f"P{patient:02d}-{slide}.zarr", groups, {})


def settings(**options) -> dict:
    model = {"epochs": 5, "patience": 5, "batch_size": 4, "learning_rate": 1e-2, "max_tiles": 8}
    top = {name: options.pop(name) for name in ("devices", "slides", "logs") if name in options}
    config = {"results": "r", "cohort": {}, "tasks": {}, "training": {"device": "cpu", "logs": [], **top}}
    config["training"]["model"] = model | options
    return complete(config)["training"]


def build(stores: Path, kind: type[SupervisedModule], training: dict, slides: int = 1, dropout: float = 0.3):
    """Module and data of a fixed run of classification."""
    patients = [f"P{number:02d}" for number in range(PATIENTS)]
    bags = BagReader(stores, {patient: [f"{patient}-{slide}" for slide in range(slides)] for patient in patients})
    first = BagReader(stores, {patient: [f"{patient}-0"] for patient in patients})
    scalers = {level: WinsorizedScaler().fit(first.sample(patients, level, rows=50, seed=0)) for level in LEVELS}
    torch.manual_seed(0)
    network = ABMIL(dict.fromkeys(LEVELS, DIM), 2, dim=8, dropout=dropout)
    task = Labels(Task("dx", "classification", ("dx",), 0), ["a", "b"], weights=np.array([1.0, 1.5]))
    module = kind(network, task, learning_rate=training["model"]["learning_rate"], weight_decay=0.01)
    # Learned from, and not: two thirds and the rest.
    parts = [
        dataset(bags, scalers, part, training["slides"], limit)
        for part, limit in ((patients[:12], training["model"]["max_tiles"]), (patients[12:17], None))
    ]
    return module, BagDataModule(*parts, batch_size=training["model"]["batch_size"], seed=7)


def dataset(bags, scalers, patients, slides, limit):
    instances = Instances.of(bags, patients, slides)
    label = torch.tensor([int(patient[1:]) % 2 for patient in patients])[instances.patient]
    targets = {"label": label, "event": torch.zeros_like(label)}
    return BagDataset(instances, scalers, targets, max_tiles=limit, seed=7)


def train(stores: Path, folder: Path, *, key: str = "key", report=lambda told: None, said=None, **options):
    """Weights, figures and curve of a run in `folder`."""
    torch.set_num_threads(1)  # tiny networks: threads would only wait for each other
    training = settings(**options.pop("training", {}))
    module, data = build(stores, options.pop("kind", Remembering), training, **options)
    run = Run(folder / "resume.safetensors", key, 7, "a run", shared=folder)
    log = (lambda line: None) if said is None else said.append
    weights, figures = fit(module, data, training, run, report=report, log=log)
    return weights, figures, (folder / "curve.csv").read_bytes()


def killed(stores: str, folder: str, moment: str, options: str) -> None:
    """Train, and die of signal 9: in an epoch, or while the state is written. Runs in a process of its own."""
    if moment == "writing":
        replace, left = os.replace, [3]

        def dying(source, target):
            if str(target).endswith("resume.safetensors"):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = dying

    def report(told):
        if moment != "writing" and told[0] >= float(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    train(Path(stores), Path(folder), report=report, training=json.loads(options))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    write_cohort(folder)
    return folder


def assert_curves_agree(first: bytes, second: bytes) -> None:
    curves = [np.genfromtxt(io.BytesIO(curve), delimiter=",", names=True) for curve in (first, second)]
    assert curves[0].dtype.names == curves[1].dtype.names
    for name in curves[0].dtype.names:
        np.testing.assert_allclose(curves[1][name], curves[0][name], rtol=1e-3, err_msg=name)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("moment", "epochs", "options"),
    [("0.5", 0, {}), ("2.9", 2, {"accumulate": 2}), ("writing", 2, {"precision": "bf16-mixed"})],
)
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(stores, tmp_path, root, moment, epochs, options):
    whole = train(stores, tmp_path / "whole", training=options)
    folder = tmp_path / "killed"
    arguments = [str(stores), str(folder), moment, json.dumps(options)]
    code = f"import runpy; runpy.run_path({__file__!r})['killed'](*{arguments})"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (folder / "resume.safetensors").exists() == (epochs > 0)
    said, told = [], []
    again = train(stores, folder, training=options, said=said, report=told.append)
    assert said == ([f"a run: goes on after epoch {epochs - 1}"] if epochs else [])
    assert told[0][0] == pytest.approx(epochs + 1 / 3)
    assert same(again[0], whole[0])
    assert again[1:] == whole[1:]
    assert not list(folder.glob(".*.part*"))


def test_what_was_not_restored_would_show(stores, tmp_path, monkeypatch):
    """The counterpart: without the buffer, or the optimiser's moments, a resumed run ends elsewhere."""
    whole = train(stores, tmp_path / "whole")

    class Stop(Exception):
        pass

    def report(told):
        if told[0] > 3.4:
            raise Stop

    for left_out in ("module/smoothed", "optimizer/0/exp_avg"):
        with pytest.raises(Stop):
            train(stores, tmp_path / "stopped", report=report)
        path = tmp_path / "stopped" / "resume.safetensors"
        state = RunState.read(path, "key")
        assert len(state.curve) == 3
        state.tensors[left_out] = torch.zeros_like(state.tensors[left_out])
        state.write(path)
        assert not same(train(stores, tmp_path / "stopped")[0], whole[0]), left_out
        path.unlink()


def test_the_state_of_other_settings_is_not_gone_on_from(stores, tmp_path):
    first = train(stores, tmp_path, key="one", training={"epochs": 2, "patience": 2})
    said = []
    second = train(stores, tmp_path, key="two", said=said, training={"epochs": 2, "patience": 2})
    assert len(said) == 1
    assert "starts anew" in said[0]
    assert same(first[0], second[0])


def test_a_run_that_was_over_is_not_trained_further(stores, tmp_path):
    """Killed after early stopping, before the checkpoint was written."""
    options = {"epochs": 30, "patience": 2, "learning_rate": 0.05}
    first, told = train(stores, tmp_path, training=options), []
    assert 2 < first[1]["epochs"] < 30
    assert first[1]["epochs"] == first[1]["best_epoch"] + 3
    second = train(stores, tmp_path, training=options, report=told.append)
    assert told == []
    assert same(first[0], second[0])
    assert first[1:] == second[1:]


def test_a_run_that_diverges_says_what_to_do(stores, tmp_path):
    class Diverging(SupervisedModule):
        def extra_losses(self, output, batch):
            return {"extra": output["logits"]["10x"].sum(dim=1) * float("inf")}

    with pytest.raises(HistillError, match=r"training diverged in epoch 0(.|\n)*training\.model\.learning_rate"):
        train(stores, tmp_path, kind=Diverging)
    assert not (tmp_path / "resume.safetensors").exists()


def test_a_damaged_state_is_started_anew(stores, tmp_path):
    (tmp_path / "resume.safetensors").write_bytes(b"\0" * 100)
    said = []
    train(stores, tmp_path, said=said, training={"epochs": 1})
    assert "starts anew" in said[0]


def test_two_ranks_learn_what_one_does(stores, tmp_path):
    """Equal halves of the same batches; five validation patients do not share evenly."""
    options = {"epochs": 3, "precision": "32-true"}
    one, two = (
        train(
            stores,
            tmp_path / str(devices),
            kind=SupervisedModule,
            dropout=0.0,
            training={**options, "devices": devices},
        )
        for devices in (1, 2)
    )
    assert one[1]["best_epoch"] == two[1]["best_epoch"]
    assert two[1]["validation_loss"] == pytest.approx(one[1]["validation_loss"], rel=1e-4)
    assert_curves_agree(one[2], two[2])


@pytest.mark.parametrize(("devices", "batch_size", "what"), [(3, 4, "batches of 4"), (6, 12, "5 validation patients")])
def test_devices_that_cannot_share_are_refused(stores, tmp_path, devices, batch_size, what):
    with pytest.raises(HistillError, match=what):
        train(stores, tmp_path, training={"devices": devices, "batch_size": batch_size})


def test_too_few_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(trainer, "lease", lambda device: nullcontext(torch.device("cuda", 0)))
    with pytest.raises(HistillError, match=r"training\.devices: 2"), trainer._leased("auto", 2):
        pass


def test_accumulated_batches_are_one_step(stores, tmp_path):
    """Two batches of 2 a step are one batch of 4, where nothing is random."""
    one = train(stores, tmp_path / "1", kind=SupervisedModule, dropout=0.0, training={"batch_size": 4})
    two = train(stores, tmp_path / "2", kind=SupervisedModule, dropout=0.0, training={"batch_size": 2, "accumulate": 2})
    assert_curves_agree(one[2], two[2])


def test_slides_of_a_patient_count_as_one(tmp_path):
    """Of twice the same slide, the mean is what the one slide is: in validation, and in the mean of the loss."""
    write_cohort(tmp_path / "stores")
    for store in list((tmp_path / "stores").glob("*-0.zarr")):
        os.symlink(store, str(store).replace("-0.zarr", "-1.zarr"))
    training = settings(slides="mean")
    module, data = build(tmp_path / "stores", SupervisedModule, training, slides=2, dropout=0.0)
    single, own = build(tmp_path / "stores", SupervisedModule, settings(), slides=1, dropout=0.0)
    assert len(data.train) == 2 * len(own.train) == 24
    np.testing.assert_array_equal(data.train.instances.weights, np.ones(24))
    losses = []
    for each, source in ((module, data), (single, own)):
        each.eval()
        each.on_validation_epoch_start()
        with torch.inference_mode():
            for batch in source.val_dataloader():
                each.validation_step(batch, 0)
        losses.append(each._validation)
    assert losses[0][2] == losses[1][2] == 5
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_patients_that_share_a_validation_batch_count_as_by_themselves(tmp_path):
    write_cohort(tmp_path / "stores")
    for store in list((tmp_path / "stores").glob("*-0.zarr")):
        os.symlink(store, str(store).replace("-0.zarr", "-1.zarr"))
    module, data = build(tmp_path / "stores", SupervisedModule, settings(slides="mean"), slides=2, dropout=0.0)
    module.eval()
    losses, batches = [], []
    for data.together in (False, True):
        module.on_validation_epoch_start()
        with torch.inference_mode():
            for batch in (loader := data.val_dataloader()):
                module.validation_step(batch, 0)
        losses.append(module._validation)
        batches.append(len(loader))
    assert batches[1] < batches[0] == losses[0][2]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_of_patients_with_one_slide_the_mean_is_the_bag(planted):
    """Teacher, lessons, student and predictions: byte for byte."""
    results, config, _ = planted(patients=24, epochs=1)
    made = []
    for slides in ("bag", "mean"):
        config["training"]["slides"] = slides
        for stage in ("teacher", "student"):
            receipts = train_stage.run(
                task="os", method="disentangled", stage=stage, config=config, results=results, only=(0, 0), log=str
            )
        checkpoint = Checkpoint.read(train_stage.run_folder(results, "os", "disentangled", "student", 0, 0))
        assert checkpoint.provenance["slides"] == slides
        task = Task.from_config("os", config["tasks"]["os"])
        table = predict(checkpoint, Cohort.read(results, "colour-texture"), task, 0, device="cpu")
        made.append((receipts[0]["outputs"]["model.safetensors"], table))
    assert made[0] == made[1]


def test_a_patient_of_many_slides_weighs_as_one_of_few(stores):
    bags = BagReader(stores, {"a": ["P00-0", "P01-0", "P02-0"], "b": ["P03-0"]})
    instances = Instances.of(bags, ["a", "b"], "mean")
    assert instances.names == ["P00-0", "P01-0", "P02-0", "P03-0"]
    assert instances.patient.tolist() == [0, 0, 0, 1]
    weights = instances.weights
    assert weights.mean() == pytest.approx(1)
    assert weights[:3].sum() == pytest.approx(weights[3])


def test_a_slide_without_a_tile_says_nothing():
    predicted = torch.tensor([[0.2, 0.8], [0.0, 0.0], [0.6, 0.4], [0.0, 0.0]])
    present = torch.tensor([True, False, True, False])
    mean = mean_over_slides(predicted, present, torch.tensor([0, 0, 0, 1]))
    torch.testing.assert_close(mean, torch.tensor([[0.4, 0.6], [0.0, 0.0]]))


def test_figures_go_to_tensorboard(stores, tmp_path):
    _, figures, curve = train(stores, tmp_path, training={"epochs": 3, "logs": ["tensorboard"]})
    files = list((tmp_path / "logs").glob("events.out.tfevents.*"))
    assert len(files) == 1
    assert files[0].read_bytes().count(b"validation_loss") == figures["epochs"] == 3
    assert curve.splitlines()[0].startswith(b"epoch,")


def test_a_logger_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HistillError, match="pip install wandb"):
        logs.check(["wandb"])


def test_a_state_holds_no_pickle(stores, tmp_path):
    train(stores, tmp_path, training={"epochs": 1})
    content = (tmp_path / "resume.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["run"])["format"] == resume._FORMAT


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_of_a_job_reads_well():
    log, clock = io.StringIO(), Clock()
    with TrainingProgress("os teacher", runs=3, epochs=10, stream=log, clock=clock) as shown:
        shown.up_to_date()
        shown.begin("fold 1, seed 0")
        for tenth in range(1, 51):
            clock.now += 2
            shown.at((tenth / 10, None if tenth <= 10 else 0.5))
        shown.done()
        shown.begin("fold 2, seed 0")
        clock.now += 20
        shown.at((1.0, 0.25))
    assert log.getvalue().splitlines() == [
        "os teacher: run 1/2 (fold 1, seed 0)",
        "os teacher: run 1/2 (fold 1, seed 0), epoch 1.5/10, validation loss 0.5000, at most 6 min 10 s left",
        "os teacher: run 1/2 (fold 1, seed 0), epoch 3.0/10, validation loss 0.5000, at most 5 min 40 s left",
        "os teacher: run 1/2 (fold 1, seed 0), epoch 4.5/10, validation loss 0.5000, at most 5 min 10 s left",
        "os teacher: run 2/2 (fold 2, seed 0), epoch 1.0/10, validation loss 0.2500, at most 1 min 38 s left",
        "os teacher: 1 run in 2 min 0 s",
    ]


def test_a_job_that_is_up_to_date_says_nothing():
    log = io.StringIO()
    with TrainingProgress("os teacher", runs=2, epochs=10, stream=log) as shown:
        shown.up_to_date()
        shown.up_to_date()
    assert log.getvalue() == ""


def test_a_terminal_has_one_bar_for_the_whole_job(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "150")
    stream = Terminal()
    with TrainingProgress("os teacher", runs=4, epochs=10, stream=stream) as shown:
        for fold in range(2):
            shown.begin(f"fold {fold}, seed 0")
            shown.at((5.0, 0.5))
            shown._bar.refresh()
            shown.done()
    text = stream.getvalue()
    assert "12%" in text
    assert "38%" in text
    assert "run 2/4 (fold 1, seed 0), epoch 5.0/10, validation loss 0.5000" in text
