"""The chain of steps behind a result, put together from receipts: what each was given, made, and asked to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histill import stages
from histill.batches import digest_receipt
from histill.bundle.manifest import MANIFEST, member_folder
from histill.cohort.stage import features_digest
from histill.evaluation.predictions import expected_models
from histill.methods import ablation, benchmark
from histill.methods.predict import MAPPED
from histill.methods.train import run_folder
from histill.provenance import DIGEST_CHARACTERS, OK, Receipt, digest, file_digest, read_json
from histill.stages import MODELS, SLIDE_STAGES, Stage
from histill.trace.records import Records

WEIGHTS = "model.safetensors"
Run = tuple[int, int]  # fold, seed


@dataclass
class Step:
    """One thing that was done.

    Attributes
    ----------
    name
        What it is called in the chain, such as `train diagnosis disentangled/student`.
    receipts
        Where its receipts lie, below the results folder.
    recipes
        Recipe of a receipt -> how many of the receipts have it.
    wanted
        Recipe that `config.json` asks for; None for steps without one.
    settings
        Config keys that the recipe is made of, with their values.
    detail
        Folds and seeds, repository of weights, ...
    inputs
        Digest of each input by name; slides are summed up.
    outputs
        Path below the results folder -> digest of the receipt.
    links
        (what, digest that the receipt has of it, digest that its own receipt or file has): they should be the same.
    before
        Names of the steps it stands on.
    software
        Digests of the software records of its receipts.
    states
        State -> number of slides, of slide stages.
    missing
        Receipts that should be there.
    """

    name: str
    receipts: list[str] = field(default_factory=list)
    recipes: dict[str, int] = field(default_factory=dict)
    wanted: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    detail: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    links: list[tuple[str, Any, Any]] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    software: set[str | None] = field(default_factory=set)
    states: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def take(self, path: str, receipt: dict[str, Any] | None) -> dict[str, Any] | None:
        """Count a receipt in, or note that it is missing."""
        if receipt is None:
            self.missing.append(path)
            return None
        self.receipts.append(path)
        self.software.add(receipt.get("software"))
        if recipe := receipt.get("recipe"):
            self.recipes[recipe] = self.recipes.get(recipe, 0) + 1
        return receipt


class Chain:
    """Steps behind a result, each after those it stands on.

    Parameters
    ----------
    slide
        Of slide stages, this slide alone.
    runs
        (fold, seed) of models, these alone; None: all that the config asks for.
    """

    def __init__(self, records: Records, *, slide: str | None = None, runs: Iterable[Run] | None = None):
        self.records, self.config, self.slide = records, records.config, slide
        folds = range(records.folds().get("n", 0))
        self.runs = [(f, s) for s in self.config["seeds"] for f in folds] if runs is None else list(runs)
        self.steps: dict[str, Step] = {}

    def _step(self, name: str, fill: Callable[[Step], None]) -> str:
        """The name of a step, which is filled in and put at the end where it is new."""
        if name not in self.steps:
            step = Step(name)
            fill(step)
            self.steps[name] = step
        return name

    def slides(self, stage: str) -> dict[str, Receipt]:
        """Receipts of a slide stage, of the slides that the chain is about."""
        found = self.records.slides(stage)
        return found if self.slide is None else {key: one for key, one in found.items() if key == self.slide}

    def slide_stage(self, stage: str) -> str:
        """Inspection, tissue, tiles or features of the slides."""
        return self._step(stage, lambda step: self._slide_stage(step, stage))

    def _slide_stage(self, step: Step, stage: str) -> None:
        place = SLIDE_STAGES.index(stage)
        earlier = SLIDE_STAGES[place - 1] if place and not self.records.imports else None
        if earlier:
            step.before.append(self.slide_stage(earlier))
        if stage == "features" and not self.records.imports:
            step.before += self._encoders()
        receipts = self.slides(stage)
        for receipt in receipts.values():
            step.take(f"slides/{receipt.slide}/receipts/{stage}.json", vars(receipt))
            step.outputs |= receipt.outputs
            step.states[receipt.state] = step.states.get(receipt.state, 0) + 1
            step.links += self._slide_links(receipt, earlier)
        if not receipts:
            step.missing.append(f"receipts/{stage}.json")
        step.inputs["slides"] = digest({slide: receipt.inputs for slide, receipt in receipts.items()})
        named = "features_import" if stage == "features" and self.records.imports else stage
        self._asked(step, stages.STAGES[named], stages.recipe(named, self.config))

    def _slide_links(self, receipt: Receipt, earlier: str | None) -> list[tuple[str, Any, Any]]:
        before = self.records.slides(earlier).get(receipt.slide) if earlier else None
        if before is None:
            return []
        if before.state != OK and set(receipt.inputs) == {earlier}:
            return [(f"{earlier} of slide {receipt.slide}", receipt.inputs[earlier], digest_receipt(before))]
        found, own = [], f"slides/{receipt.slide}"
        inspected = self.records.slides("inspect").get(receipt.slide)
        if inspected and "slide" in receipt.inputs:
            found.append((f"slide {receipt.slide}", receipt.inputs["slide"], inspected.inputs.get("slide")))
        if "tiles" in receipt.inputs:
            found.append((f"{own}/tiles.parquet", receipt.inputs["tiles"], before.outputs.get(f"{own}/tiles.parquet")))
        outline = self.records.results / own / "tissue.geojson"
        if "tissue" in receipt.inputs and outline.exists():  # people may edit it: what counts is what lies there
            found.append((f"{own}/tissue.geojson", receipt.inputs["tissue"], file_digest(outline)))
        return found

    def _encoders(self) -> list[str]:
        folder = self.records.results / "receipts" / "encoders"
        return [self._encoder(path.stem) for path in sorted(folder.glob("*.json"))]

    def _encoder(self, name: str) -> str:
        def fill(step: Step) -> None:
            receipt = step.take(f"receipts/encoders/{name}.json", self.records.receipt(f"encoders/{name}")) or {}
            source = receipt.get("repository") or "local weights"
            step.detail = source + (f" at {receipt['revision']}" if receipt.get("revision") else "")
            step.inputs = {one["name"]: one["sha256"] for one in receipt.get("files", ())}

        return self._step(f"encoder {name}", fill)

    def transcriptome(self) -> str:
        """The expression table."""

        def fill(step: Step) -> None:
            receipt = step.take("receipts/transcriptome.json", self.records.receipt("transcriptome")) or {}
            step.inputs = receipt.get("inputs", {})
            step.outputs = receipt.get("outputs", {}) | receipt.get("tables", {})
            self._asked(step, stages.STAGES["transcriptome"], stages.recipe("transcriptome", self.config))

        return self._step("transcriptome", fill)

    def cohort(self) -> str:
        """Patients and folds."""

        def fill(step: Step) -> None:
            step.before = [self.slide_stage("features")]
            if self.records.has_rna:
                step.before.append(self.transcriptome())
            receipt = step.take("receipts/cohort.json", self.records.receipt("cohort")) or {}
            step.outputs = receipt.get("outputs", {})
            if folds := self.records.folds():
                step.detail = f"{folds['n']} folds, {folds['source']}"
            if "features" in receipt:
                made = features_digest(list(self.records.slides("features").values()), self.config)
                step.links.append(("the feature stores", receipt["features"], made))
            self._asked(step, stages.STAGES["cohort"], stages.recipe("cohort", self.config))

        return self._step("cohort", fill)

    def audit(self) -> str:
        """The search for patients under two ids."""

        def fill(step: Step) -> None:
            step.before = [self.cohort()]
            receipt = step.take("receipts/audit.json", self.records.receipt("audit")) or {}
            step.outputs, step.detail = receipt.get("outputs", {}), receipt.get("state", "")
            self._asked(step, stages.STAGES["audit"], stages.recipe("audit", self.config))

        return self._step("audit", fill)

    def train(self, task: str, folder: str, stage: str) -> str:
        """Runs of a model stage; `folder` is the method, or `<method>.<variant>` of the ablation."""
        return self._step(f"train {task} {folder}/{stage}", lambda step: self._train(step, task, folder, stage))

    def _train(self, step: Step, task: str, folder: str, stage: str) -> None:
        method, _, variant = folder.partition(".")
        node, varied = MODELS[method][stage], ablation.configure(self.config, variant or None)
        places = {
            name: (
                stages.task_of(method, name, task),
                ablation.folder(self.config, variant or None, method, name, task=task),
            )
            for name in node.after
        }
        step.before = [self.audit(), *(self.train(*places[name], name) for name in node.after)]
        if self.records.has_rna:
            step.before.append(self.transcriptome())
        for run in self.runs:
            own = run_folder("", task, folder, stage, *run).as_posix()
            receipt = step.take(f"{own}/receipt.json", self.records.run(task, folder, stage, *run))
            if receipt is None:
                continue
            step.outputs |= {f"{own}/{name}": value for name, value in receipt["outputs"].items()}
            step.links += self._training_links(own, receipt, labels=node.labels)
            for name, (its_task, place) in places.items():
                earlier = self.records.run(its_task, place, name, *run) or {}
                step.links.append((f"{name} of {own}", receipt["inputs"].get(name), earlier.get("outputs")))
        step.detail = _told(self.runs)
        wanted = stages.model_recipe(method, stage, varied, task=task)
        self._asked(step, node, wanted, task=task, config=varied)

    def _training_links(self, own: str, receipt: dict[str, Any], *, labels: bool) -> list[tuple[str, Any, Any]]:
        cohort = self.records.receipt("cohort") or {}
        expression = self.records.receipt("transcriptome") or {}
        inputs, found = receipt["inputs"], []
        if labels:  # without labels only some columns of the table count
            found.append((f"the cohort of {own}", inputs.get("cohort"), cohort.get("outputs")))
        if inputs.get("features"):
            found.append((f"the feature stores of {own}", inputs["features"], cohort.get("features")))
        if inputs.get("expression"):
            now = [expression.get("outputs"), expression.get("inputs", {}).get("gene_sets")]
            found.append((f"the expression of {own}", inputs["expression"][:2], now))
        return found

    def predict(self, task: str, folder: str, stage: str) -> str:
        """Predictions of the runs of a model stage."""
        return self._step(f"predict {task} {folder}/{stage}", lambda step: self._predict(step, task, folder, stage))

    def _predict(self, step: Step, task: str, folder: str, stage: str) -> None:
        step.before, step.detail = [self.train(task, folder, stage)], _told(self.runs)
        recipe = stages.recipe("predict", self.config, task=task)
        for run in self.runs:
            own = run_folder("", task, folder, stage, *run).as_posix()
            made = step.take(f"{own}/predictions.json", self.records.predictions(task, folder, stage, *run))
            trained = self.records.run(task, folder, stage, *run)
            if made is None:
                continue
            step.outputs |= {f"{own}/{name}": value for name, value in made["outputs"].items()}
            if trained is not None:
                mapped = (folder, stage, run[1]) == (*MAPPED, self.config["seeds"][0])
                key = digest([trained["outputs"], trained["inputs"], recipe, mapped])
                step.links.append((f"the model of {own}", made["key"], key))
        self._asked(step, stages.STAGES["predict"], recipe, task=task)

    def evaluate(self, task: str) -> str:
        """Scores of a task."""
        return self._table(
            "evaluate", f"evaluation/{task}", task, recipe=stages.recipe("evaluate", self.config, task=task)
        )

    def benchmark(self, task: str) -> str:
        """All methods of the benchmark on the same patients."""
        return self._table(
            "benchmark", f"benchmark/{task}", task, recipe=benchmark.table_recipe(self.config, task=task)
        )

    def ablation(self, task: str) -> str:
        """The disentangled method with parts taken away."""
        recipe = ablation.table_recipe(self.config, task=task)
        return self._table("ablation", f"evaluation/ablation-{task}", task, recipe=recipe)

    def _table(self, kind: str, name: str, task: str, *, recipe: str) -> str:
        def fill(step: Step) -> None:
            step.before = [self.predict(task, *model) for model in self._models(kind, task)]
            receipt = step.take(f"receipts/{name}.json", self.records.receipt(name)) or {}
            step.inputs, step.outputs = receipt.get("inputs", {}), receipt.get("outputs", {})
            made = {path: value for before in step.before for path, value in self.steps[before].outputs.items()}
            step.links = [(path, value, made.get(path)) for path, value in step.inputs.items()]
            self._asked(step, stages.STAGES["evaluate"], recipe, task=task)

        return self._step(f"{kind} {task}", fill)

    def _models(self, kind: str, task: str) -> list[tuple[str, str]]:
        """(folder, stage) of the models that a table scores."""
        if kind == "ablation":
            names = [None, *(variant.name for variant in ablation.variants(self.config))]
            nodes = [node for name in names for node in ablation.nodes(self.config, name, task=task)]
            return list(dict.fromkeys((node.folder, node.stage) for node in nodes))
        config = benchmark.configure(self.config) if kind == "benchmark" else self.config
        return [(model.method, model.stage) for model in expected_models(config)]

    def bundle(self, folder: Path) -> str:
        """A bundle below the results."""

        def fill(step: Step) -> None:
            own = folder.relative_to(self.records.results).as_posix()
            about = read_json(folder / MANIFEST)
            task, method, stage = about["task"]["name"], about["method"], about["stage"]
            self.runs = [(member["fold"], member["seed"]) for member in about["members"]]
            step.before = [self.evaluate(task)]
            step.receipts, step.detail = [f"{own}/{MANIFEST}"], f"histill {about['histill']}; {_told(self.runs)}"
            step.outputs = {f"{own}/{name}": one["sha256"][:DIGEST_CHARACTERS] for name, one in about["files"].items()}
            for number, run in enumerate(self.runs):
                trained = (self.records.run(task, method, stage, *run) or {}).get("outputs", {})
                weights = f"{own}/{member_folder(number)}/{WEIGHTS}"
                step.links.append((f"the model of {weights}", step.outputs.get(weights), trained.get(WEIGHTS)))

        return self._step(f"bundle {folder.name}", fill)

    def report(self) -> str:
        """The page and its figures."""

        def fill(step: Step) -> None:
            step.before = [self.audit(), *(self.evaluate(task) for task in self.config["tasks"])]
            receipt = step.take("receipts/report.json", self.records.receipt("report")) or {}
            step.inputs, step.outputs = receipt.get("inputs", {}), receipt.get("outputs", {})
            for name, value in step.inputs.items():
                path = self.records.results / name
                step.links.append((name, value, file_digest(path) if path.exists() else None))
            self._asked(step, stages.STAGES["report"], stages.recipe("report", self.config))

        return self._step("report", fill)

    def _asked(
        self, step: Step, node: Stage, recipe: str, *, task: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        """What the config asks for."""
        step.wanted = recipe
        keys = [key.format(task=task) for key in node.keys]
        step.settings = {key: stages.select(config or self.config, key) for key in keys}


def _told(runs: list[Run]) -> str:
    folds, seeds = (sorted({run[place] for run in runs}) for place in (0, 1))
    return f"folds {', '.join(map(str, folds))}; seeds {', '.join(map(str, seeds))}"
