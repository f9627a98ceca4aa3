"""What a job stands on: a digest of the parameters of all jobs before it.

Snakemake removes what a failed job was to make, and forgets with it that its parameters had changed; for the jobs
behind it, whose own files are there, nothing has happened. After a change of the config, a stage that fails would be
missing from the next run, and results of the config before would stand as those of this one. So each rule has the
lineage of what lies before it among its parameters. Files are in no lineage: Snakemake compares their times across what
is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from histill import stages
from histill.plan import Plan
from histill.provenance import digest


def demo(plan: Plan) -> str | None:
    """The synthetic cohort; None for a cohort of the user's own."""
    return stages.recipe("demo", plan.config) if "demo" in plan.config else None


def slides(plan: Plan, stage: str, batch: str | None = None) -> str:
    """A slide stage of a batch, or of all slides."""
    encoders = plan.encoder_digest() if stage == "features" else None
    return digest([demo(plan), plan.rows(batch), stages.recipe(stage, plan.config), encoders])


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


def prediction(plan: Plan, recipes: Iterable[str], task: str) -> str:
    """Predictions of the models of some training recipes."""
    shared = [plan.config["seeds"], plan.batch_digest(), stages.recipe("predict", plan.config, task=task)]
    return digest([cohort(plan), sorted(set(recipes)), *shared])


def run(plan: Plan, task: str) -> str:
    """Predictions of all that the config trains, for a task."""
    recipes = (stages.model_recipe(*trained, plan.config, task=task) for trained in plan.training_stages())
    return prediction(plan, recipes, task)


def evaluation(plan: Plan, task: str) -> str:
    """The scores of a task."""
    return digest([run(plan, task), stages.recipe("evaluate", plan.config, task=task)])
