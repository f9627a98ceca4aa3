"""What a run will do: the checked config and sheets, and the batches. The Snakefile is built on this."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from histill import batches, stages
from histill import config as configuration
from histill.cohort import fold_checks, fold_file
from histill.cohort import sheets as sampling
from histill.cohort.rows import read_rows
from histill.cohort.sheets import Sheets, Slide
from histill.encoders import recipes, weights
from histill.errors import ConfigError, HistillError
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import digest
from histill.stages import MODELS, needs_rna
from histill.transcriptome import checks, matrix

_BATCHES_NAMED = 8  # in an error


@dataclass
class Plan:
    """A checked run.

    Attributes
    ----------
    config
        Complete config.
    batches
        Batch name -> slide ids; empty when features are imported.
    """

    config: dict[str, Any]
    sheets: Sheets
    batches: dict[str, list[str]]

    @property
    def results(self) -> Path:
        return Path(self.config["results"])

    @property
    def imports(self) -> bool:
        """Whether features come from elsewhere."""
        return self.config["features"]["source"] != "extract"

    def slides(self, batch: str) -> list[Slide]:
        """Slides of a batch."""
        if batch not in self.batches:
            known = ", ".join(list(self.batches)[:_BATCHES_NAMED]) or "none: features are imported"
            raise HistillError(f"there is no batch '{batch}'", mend=f"batches of this config: {known}")
        return [self.sheets.slides[slide] for slide in self.batches[batch]]

    def rows(self, batch: str | None = None) -> str:
        """Digest of what the sheet says of a batch's slides, or of all: another path or mpp inspects them again."""
        if batch is None:
            return self._all_rows
        return digest([[slide.slide_id, slide.path, slide.mpp] for slide in self.slides(batch)])

    @cached_property
    def _all_rows(self) -> str:
        slides = sorted(self.sheets.slides.values(), key=lambda slide: slide.slide_id)
        return digest([[slide.slide_id, slide.path, slide.mpp] for slide in slides])

    def named_files(self) -> set[str]:
        """Files that rules take as inputs because the config names them; slides are checked with their sheet."""
        models = (file for method, stage in self.training_stages() for file in stages.files(method, stage, self.config))
        encoders = [] if self.imports else self.encoders_with_weights()
        weights = (file for encoder in encoders for file in self.weight_files(encoder))
        expression = self.expression_files() if self.sheets.expression and "demo" not in self.config else ()
        return {*self.sheet_files(), *expression, *self.matrix_files(), *self.gene_set_files(), *models, *weights}

    def feature_sources(self) -> list[str]:
        """Files that features are imported from."""
        table = self.config["features"]["table"]
        return [table] if table else [slide.path for slide in self.sheets.slides.values()]

    def sheet_files(self) -> list[str]:
        """Sheets that the cohort stage reads."""
        if "demo" in self.config:
            return [f"{self.config['results']}/demo/{name}.csv" for name in ("slides", "clinical")]
        folds = self.config["folds"]["file"]
        named = (self.config["cohort"]["slides"], self.config["cohort"]["clinical"])
        return [*(path for path in named if path), *(fold_file.files(folds) if folds else [])]

    def expression_files(self) -> list[str]:
        """The expression table, or the files of a folder of them."""
        return matrix.files(self.sheets.expression)

    def matrix_files(self) -> list[str]:
        """Tables that explain the expression table: samples of files, genes of transcripts, symbols, lengths."""
        options = self.config["transcriptome"]["matrix"]
        return [options[key] for key in matrix.SIDE_FILES if options[key]]

    def gene_set_files(self) -> list[str]:
        """Gene sets of the user's own."""
        options = self.config["transcriptome"]["gene_sets"]
        return [options[space] for space in ("tumor", "microenvironment") if options[space]]

    def folds(self) -> int:
        """Number of folds over all repeats, of the config or of its file of published folds."""
        return fold_checks.count(self.config, self.sheets)

    def encoders(self) -> dict[str, str | None]:
        """Encoders of the extraction, and the local weights of each or None."""
        return recipes.chosen(self.config)

    def encoder_digest(self, *names: str) -> str:
        """Digest of encoders' registry entries (of all in use): a corrected recipe extracts anew."""
        return digest([recipes.get(name).as_dict() for name in names or sorted(self.encoders())])

    def encoders_with_weights(self) -> list[str]:
        """Encoders whose weights are fetched, or given, before extraction."""
        return [name for name in self.encoders() if recipes.get(name).has_weights]

    def weight_files(self, encoder: str) -> list[str]:
        """Files of weights that the config names in place of the hub's."""
        given = self.encoders()[encoder]
        if not given:
            return []
        folder, names = weights.local(recipes.get(encoder), given)
        return [str(folder / name) for name in names]

    def weight_stamps(self, encoder: str) -> list[tuple[int, int]]:
        """Size and time of those files: one that is replaced by an older one is another one too."""
        return [(status.st_size, status.st_mtime_ns) for status in map(os.stat, self.weight_files(encoder))]

    def encoder_threads(self) -> int:
        """CPU threads of an extraction job: descriptors use one."""
        return self.config["features"]["threads"] if self._any_network() else 1

    def encoder_gpus(self) -> int:
        """GPUs an extraction job asks for."""
        return int(self._any_network() and self.config["features"]["device"] != "cpu")

    def _any_network(self) -> bool:
        return any(recipes.get(name).builder != "descriptor" for name in self.encoders())

    def tissue_gpus(self) -> int:
        """GPUs a tissue job asks for: one where tissue is found by a model."""
        return int(self.config["tissue"]["method"] != "colour" and self.config["tissue"]["device"] != "cpu")

    def batch_digest(self) -> str | None:
        """Digest of the batches that expression is corrected for, by patient.

        None without any, and for `site`, which is in the cohort's table: models are trained again for that already.
        """
        column = self.config["transcriptome"]["transform"]["batch"]["column"]
        if column is None or column == "site" or "demo" in self.config:
            return None
        _, rows = read_rows(self.config["cohort"]["clinical"], [])
        return digest(sorted((row.get("patient_id") or "", row.get(column) or "") for _, row in rows))

    def training_gpus(self, method: str) -> int:
        """GPUs a training job of a method asks for; linear models and retrieval have no use for one."""
        if self.config["training"]["device"] == "cpu" or method.startswith(("linear", "retrieval")):
            return 0
        return self.config["training"]["devices"]

    def prediction_gpus(self) -> int:
        """GPUs a prediction job asks for: one where any of its models has use for it."""
        return min(1, max(self.training_gpus(method) for method in self.config["methods"]["run"]))

    def training_stages(self) -> list[tuple[str, str]]:
        """(method, stage) of everything the config trains."""
        return [(method, stage) for method in self.config["methods"]["run"] for stage in MODELS[method]]


def load(config: dict[str, Any] | str | Path, *, look: bool = True) -> Plan:
    """Check a config (mapping or file) and its sheets; raises `ConfigError` with every problem.

    Without `look` no slide file is looked for (`cohort.sheets.load`).
    """
    complete = configuration.load(config) if isinstance(config, (str, Path)) else configuration.complete(config)
    problems: list[str] = []
    try:
        sheets = sampling.load(complete, look=look)
    except ConfigError as error:
        problems.extend(error.problems)
    else:
        problems.extend(fold_checks.check(complete, sheets))
        problems.extend(checks.batches(complete, sheets))
        problems.extend(_check_cohort_column(complete, sheets))
    problems.extend(checks.matrix(complete))
    problems.extend(checks.gene_sets(complete))
    problems.extend(_check_encoder(complete))
    problems.extend(_check_methods(complete))
    if problems:
        raise ConfigError(problems)
    imports = complete["features"]["source"] != "extract"
    checked = Plan(complete, sheets, {} if imports else batches.assign(sheets.slides, complete["batch_size"]))
    if problems := [problem for path in sorted(checked.named_files()) for problem in sampling.check_name(path)]:
        raise ConfigError([f"config: {problem}" for problem in problems])
    return checked


def _check_cohort_column(config: dict[str, Any], sheets: Sheets) -> list[str]:
    column = config["methods"]["msrl"]["cohort"]
    if column is None or column in sheets.clinical.columns:
        return []
    return [
        f"config key 'methods.msrl.cohort': the clinical sheet has no column '{column}'; "
        f"it has {', '.join(sheets.clinical.columns) or 'none'}"
    ]


def _check_encoder(config: dict[str, Any]) -> list[str]:
    options = config["features"]
    if options["source"] != "extract":
        if unused := [key for key in ("weights", "also") if options[key]]:
            return [f"config key 'features.{unused[0]}': features are imported, not extracted; leave it out"]
        if options["encoder"] not in recipes.registry():
            return []
        # Imports under an encoder's own name would lie among, and pass for, what histill extracted.
        return [
            f"config key 'features.encoder': '{options['encoder']}' is an encoder of histill; imported features need a "
            "name of their own that says where they come from, such as 'uni-trident'"
        ]
    if options["encoder"] in options["also"]:
        return [f"config key 'features.also': '{options['encoder']}' is features.encoder already; leave it out"]
    chosen = recipes.chosen(config)
    problems = [problem for name, given in chosen.items() for problem in _check_one(config, name, given)]
    return problems or _check_stain(list(chosen), options["stain_normalisation"])


def _check_stain(encoders: list[str], asked: str) -> list[str]:
    methods = {name: recipes.stain_method(name, asked) for name in encoders}
    if len(set(methods.values())) == 1:
        return []
    said = ", ".join(f"{name}: {method}" for name, method in methods.items())
    return [
        f"config key 'features.also': the encoders want different stain normalisation ({said}); extract them in runs "
        "of their own, or set features.stain_normalisation to none, macenko or reinhard"
    ]


def _check_one(config: dict[str, Any], name: str, given: str | None) -> list[str]:
    options = config["features"]
    main = name == options["encoder"]
    try:
        recipes.check(
            name,
            tile_size=config["tiles"]["size"],
            mpps=MAGNIFICATIONS,
            allow_off_recipe=options["allow_off_recipe"],
            stain_normalisation=options["stain_normalisation"],
        )
    except HistillError as error:
        return [f"config key 'features.{'encoder' if main else 'also'}': {error.message} ({error.mend})"]
    return _check_weights(recipes.get(name), given, "features.weights" if main else f"features.also.{name}")


def _check_weights(recipe: recipes.EncoderRecipe, path: str | None, key: str) -> list[str]:
    lacking = recipes.missing_package(recipe)
    if lacking:
        return [f"encoder '{recipe.name}' needs the package {lacking[0]}, which is not installed ({lacking[1]})"]
    if path and not recipe.has_weights:
        return [f"config key '{key}': encoder '{recipe.name}' has no weights; leave it null"]
    if path:
        try:
            weights.local(recipe, path)
        except HistillError as error:
            return [f"config key '{key}': {error.message} ({error.mend})"]
    elif recipe.has_weights and recipe.hub is None:
        return [
            f"config key '{key}': encoder '{recipe.name}' lies in no public repository; name its file here "
            f"({recipe.file}, from its authors)"
        ]
    return []


def _check_methods(config: dict[str, Any]) -> list[str]:
    if "demo" in config or not config["tasks"] or config["cohort"]["expression"]:
        return []
    return [
        f"config key 'methods.run': '{method}' needs transcriptomes; name the table in cohort.expression, "
        "or leave the method out"
        for method in config["methods"]["run"]
        if needs_rna(method)
    ]
