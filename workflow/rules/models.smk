# Training, prediction and evaluation. A training job covers every fold and seed of a stage (training.jobs: single), or one
# of them (per_fold); runs that are done are skipped either way.
PER_FOLD = PLAN.config["training"]["jobs"] == "per_fold"
RUN = f"{RECEIPTS}/train/{{task}}/{{method}}-{{stage}}" + ("-fold{fold}-seed{seed}" if PER_FOLD else "")
ONLY = " --fold {wildcards.fold} --seed {wildcards.seed}" if PER_FOLD else ""


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


rule train_runs:
    input:
        training_inputs,
    output:
        f"{RUN}.json",
    log:
        f"{RUN}.log".replace(RECEIPTS, f"{RESULTS}/logs"),
    benchmark:
        f"{RUN}.tsv".replace(RECEIPTS, f"{RESULTS}/benchmarks")
    resources:
        **asks("train", gpu=lambda wildcards: PLAN.training_gpus(wildcards.method)),
    params:
        recipe=training_recipe,
        batches=training_batches,
        seeds=PLAN.config["seeds"],
    shell:
        "histill train" + CONFIGURED + "--task {wildcards.task} --method {wildcards.method}"
        " --stage {wildcards.stage} --out {output:q}" + ONLY + LOGGED


rule predict:
    input:
        training_receipts,
    output:
        f"{RECEIPTS}/predict-{{task}}.json",
    log:
        f"{RESULTS}/logs/predict-{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict-{{task}}.tsv"
    resources:
        **asks("predict", gpu=PLAN.prediction_gpus()),
    params:
        recipe=lambda wildcards: stages.recipe("predict", PLAN.config, task=wildcards.task),
    shell:
        "histill predict-stage" + CONFIGURED + "--task {wildcards.task}" + LOGGED


rule evaluate:
    input:
        f"{RECEIPTS}/predict-{{task}}.json",
    output:
        f"{RESULTS}/evaluation/{{task}}.json",
        report(
            f"{RESULTS}/evaluation/{{task}}.tsv",
            caption="../report/evaluation.rst",
            category="Evaluation",
            subcategory="{task}",
            labels={"what": "table"},
        ),
    log:
        f"{RESULTS}/logs/evaluate-{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate-{{task}}.tsv"
    resources:
        **asks("evaluate"),
    params:
        recipe=lambda wildcards: stages.recipe("evaluate", PLAN.config, task=wildcards.task),
    shell:
        "histill evaluate" + CONFIGURED + "--task {wildcards.task}" + LOGGED


# By name: everything trained, predicted and scored.
rule train:
    input:
        expand(f"{RECEIPTS}/predict-{{task}}.json", task=TASKS),
