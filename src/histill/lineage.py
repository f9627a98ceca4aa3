"""What a job stands on: a digest of the parameters of all jobs before it.

Snakemake removes what a failed job was to make, and notes its new parameters all the same; for the jobs behind it,
whose own files are there, nothing has happened. After a change of the config, a stage that fails would be missing from
the next run, and results of the config before would stand as those of this one. So each rule has the lineage of what
lies before it among its parameters. The contents of files are in no lineage: `onerror` (`workflow/rules/common.smk`)
has Snakemake forget the files that a failed job has seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from histill import stages
from histill.plan import Plan
from histill.provenance import digest

Trained = tuple[str, str]  # method, stage


def demo(plan: Plan) -> str | None:
    """The synthetic cohort; None for a cohort of the user's own."""
    return stages.recipe("demo", plan.config) if "demo" in plan.config else None


def slides(plan: Plan, stage: str, batch: str | None = None) -> str:
    """A slide stage of a batch, or of all slides in their batches."""
    encoders = [plan.encoder_digest(), plan.encoders()] if stage == "features" else None
    members = plan.batches if batch is None else None
    return digest([demo(plan), plan.rows(batch), members, stages.recipe(stage, plan.config), encoders])


def features(plan: Plan) -> str:
    """Features of all slides, extracted or imported."""
    if not plan.imports:
        return slides(plan, "features")
    return digest([plan.rows(), plan.feature_sources(), stages.recipe("features_import", plan.config)])


def transcriptome(plan: Plan) -> str | None:
    """The normalised expression; None where the cohort has none."""
    if not plan.sheets.expression:
        return None
    named = [*plan.expression_files(), *plan.matrix_files(), *plan.gene_set_files()]
    return digest([demo(plan), named, stages.recipe("transcriptome", plan.config)])


def cohort(plan: Plan) -> str:
    """The joined and audited cohort."""
    recipes = [stages.recipe(stage, plan.config) for stage in ("cohort", "audit")]
    return digest([features(plan), transcriptome(plan), plan.sheet_files(), *recipes])


def prediction(plan: Plan, trained: Iterable[Trained], task: str, config: dict[str, Any] | None = None) -> str:
    """Predictions of some (method, stage), trained under the config or a variant of it."""
    trained = list(trained)
    recipes = [stages.model_recipe(*one, config or plan.config, task=task) for one in trained]
    batches = plan.batch_digest() if any(stages.needs_rna(method) for method, _ in trained) else None
    shared = [plan.config["seeds"], plan.config["training"]["jobs"], stages.recipe("predict", plan.config, task=task)]
    return digest([cohort(plan), sorted(recipes), batches, *shared])


def run(plan: Plan, task: str) -> str:
    """Predictions of all that the config trains, for a task."""
    return prediction(plan, plan.training_stages(), task)


def evaluation(plan: Plan, task: str) -> str:
    """The scores of a task."""
    return digest([run(plan, task), stages.recipe("evaluate", plan.config, task=task)])


def report(plan: Plan) -> str:
    """All that the report shows."""
    return digest([cohort(plan), [evaluation(plan, task) for task in sorted(plan.config["tasks"])]])
