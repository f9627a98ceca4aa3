# What training, prediction and the tables stand on. A training job covers every fold and seed of a stage (training.jobs:
# single), or one of them (per_fold); what is done is skipped either way.
from histill.methods import ablation
from histill.methods import benchmark as side_by_side

PER_FOLD = PLAN.config["training"]["jobs"] == "per_fold"
RUN = f"{RECEIPTS}/train/{{task}}/{{method}}-{{stage}}" + ("-fold{fold}-seed{seed}" if PER_FOLD else "")
ONLY = "--fold {wildcards.fold} --seed {wildcards.seed}" if PER_FOLD else ""


def training_inputs(wildcards):
    """Receipts a training run stands on: the cohort, and the stages before it."""
    same = dict(wildcards.items())
    before = [
        {**same, "stage": name, "task": stages.task_of(wildcards.method, name, wildcards.task)}
        for name in stages.MODELS[wildcards.method][wildcards.stage].after
    ]
    files = stages.files(wildcards.method, wildcards.stage, PLAN.config)
    return [
        f"{RECEIPTS}/cohort.json",
        f"{RECEIPTS}/audit.json",
        *files,
        *(RUN.format(**run) + ".json" for run in before),
    ]


def training_recipe(wildcards):
    return stages.model_recipe(wildcards.method, wildcards.stage, PLAN.config, task=wildcards.task)


def training_batches(wildcards):
    """Digest of the batches that a model's expression is corrected for."""
    reads = stages.MODELS[wildcards.method][wildcards.stage].learns_from
    return f"batches:{PLAN.batch_digest()}" if "rna" in reads else None


def training_receipts(wildcards):
    """Receipts of everything the config trains for a task, and for all tasks."""
    return [
        RUN.format(task=stages.task_of(method, stage, wildcards.task), method=method, stage=stage, fold=fold, seed=seed)
        + ".json"
        for method, stage in PLAN.training_stages()
        for seed in (PLAN.config["seeds"] if PER_FOLD else [0])
        for fold in (range(PLAN.folds()) if PER_FOLD else [0])
    ]


VARIANT = RUN.replace("{method}", f"{ablation.METHOD}.{{variant}}")


def variant_inputs(wildcards):
    """Receipts a training run of a variant stands on: the cohort, and the stages before it, perhaps the full model's."""
    before = stages.MODELS[ablation.METHOD][wildcards.stage].after
    same = dict(wildcards.items())
    places = {
        name: ablation.folder(PLAN.config, wildcards.variant, ablation.METHOD, name, task=wildcards.task)
        for name in before
    }
    runs = [RUN.format(**{**same, "stage": name, "method": place}) for name, place in places.items()]
    return [f"{RECEIPTS}/cohort.json", f"{RECEIPTS}/audit.json", *(f"{run}.json" for run in runs)]


def variant_recipe(wildcards):
    varied = ablation.configure(PLAN.config, wildcards.variant)
    return stages.model_recipe(ablation.METHOD, wildcards.stage, varied, task=wildcards.task)


def variant_receipts(wildcards):
    """Receipts of the training of a variant: teacher and student."""
    return [
        RUN.format(task=wildcards.task, method=node.folder, stage=node.stage, fold=fold, seed=seed) + ".json"
        for node in ablation.nodes(PLAN.config, wildcards.variant, task=wildcards.task)
        for seed in (PLAN.config["seeds"] if PER_FOLD else [0])
        for fold in (range(PLAN.folds()) if PER_FOLD else [0])
    ]


def variant_lineage(task, name):
    """What the predictions of a variant stand on; the full model's are among it."""
    varied = ablation.configure(PLAN.config, name)
    parts = [(node.method, node.stage) for node in ablation.nodes(PLAN.config, name, task=task)]
    return f"{lineage.run(PLAN, task)} {lineage.prediction(PLAN, parts, task, varied)}"


def table_inputs(wildcards):
    """Receipts of the predictions of the full model and of every variant."""
    names = [variant.name for variant in ablation.variants(PLAN.config)]
    return [f"{RECEIPTS}/predict-{wildcards.task}{name}.json" for name in ["", *(f".{name}" for name in names)]]


def ablation_tables(wildcards):
    """Tables of all tasks. What is wrong with the ablation is said where it is asked for, and stops no other run."""
    if problems := ablation.check(PLAN.config):
        raise configuration.ConfigError(problems)
    return expand(f"{RESULTS}/evaluation/ablation-{{task}}.json", task=ablation.tasks(PLAN.config))


def benchmark_training(wildcards):
    """Receipts of everything the benchmark trains for a task, and for all tasks."""
    return [
        RUN.format(task=stages.task_of(method, stage, wildcards.task), method=method, stage=stage, fold=fold, seed=seed)
        + ".json"
        for method, stage in side_by_side.training_stages(PLAN.config)
        for seed in (PLAN.config["seeds"] if PER_FOLD else [0])
        for fold in (range(PLAN.folds()) if PER_FOLD else [0])
    ]


def benchmark_lineage(wildcards):
    """What the predictions of the benchmark stand on."""
    shared = lineage.run(PLAN, wildcards.task) if side_by_side.holds_the_run(PLAN.config) else None
    return f"before:{shared} {lineage.prediction(PLAN, side_by_side.training_stages(PLAN.config), wildcards.task)}"


def benchmark_shared(wildcards):
    """The run's own predictions, where the benchmark has all of its methods: so that none is predicted twice at once."""
    return [f"{RECEIPTS}/predict-{wildcards.task}.json"] if side_by_side.holds_the_run(PLAN.config) else []


def benchmark_tables(wildcards):
    """Tables of all tasks. What is wrong with the benchmark is said where it is asked for, and stops no other run."""
    if problems := side_by_side.check(PLAN.config):
        raise configuration.ConfigError(problems)
    return expand(f"{RESULTS}/benchmark/{{task}}.json", task=TASKS)
