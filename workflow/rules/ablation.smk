# By name: the disentangled method with one part after another taken away, trained, predicted and scored beside the full
# model. What a variant does not change is not trained again.
from histill.methods import ablation

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


def table_inputs(wildcards):
    """Receipts of the predictions of the full model and of every variant."""
    names = [variant.name for variant in ablation.variants(PLAN.config)]
    return [f"{RECEIPTS}/predict-{wildcards.task}{name}.json" for name in ["", *(f".{name}" for name in names)]]


def ablation_tables(wildcards):
    """Tables of all tasks. What is wrong with the ablation is said where it is asked for, and stops no other run."""
    if problems := ablation.check(PLAN.config):
        raise configuration.ConfigError(problems)
    return expand(f"{RESULTS}/evaluation/ablation-{{task}}.json", task=ablation.tasks(PLAN.config))


rule train_variant:
    input:
        variant_inputs,
    output:
        f"{VARIANT}.json",
    log:
        f"{VARIANT}.log".replace(RECEIPTS, f"{RESULTS}/logs"),
    benchmark:
        f"{VARIANT}.tsv".replace(RECEIPTS, f"{RESULTS}/benchmarks")
    resources:
        **asks("train", gpu=PLAN.training_gpus(ablation.METHOD)),
    params:
        recipe=variant_recipe,
        batches=f"batches:{PLAN.batch_digest()}",
        seeds=PLAN.config["seeds"],
    shell:
        "histill train" + CONFIGURED + "--task {wildcards.task} --method disentangled --variant {wildcards.variant:q}"
        " --stage {wildcards.stage} --out {output:q}" + ONLY + LOGGED


rule predict_variant:
    input:
        variant_receipts,
        # So that what is shared with the full model is predicted once.
        f"{RECEIPTS}/predict-{{task}}.json",
    output:
        f"{RECEIPTS}/predict-{{task}}.{{variant}}.json",
    log:
        f"{RESULTS}/logs/predict-{{task}}.{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict-{{task}}.{{variant}}.tsv"
    resources:
        **asks("predict", gpu=PLAN.training_gpus(ablation.METHOD)),
    params:
        recipe=lambda wildcards: stages.recipe("predict", PLAN.config, task=wildcards.task),
    shell:
        "histill predict-stage" + CONFIGURED + "--task {wildcards.task} --variant {wildcards.variant:q}" + LOGGED


# evaluation/ablation-<task>.json could be the evaluation of a task of that name.
ruleorder: ablation_table > evaluate


rule ablation_table:
    input:
        table_inputs,
    output:
        f"{RESULTS}/evaluation/ablation-{{task}}.json",
        report(
            f"{RESULTS}/evaluation/ablation-{{task}}.tsv",
            caption="../report/ablation.rst",
            category="Ablation",
            subcategory="{task}",
            labels={"what": "table"},
        ),
        report(
            f"{RESULTS}/evaluation/ablation-{{task}}.png",
            caption="../report/ablation.rst",
            category="Ablation",
            subcategory="{task}",
            labels={"what": "figure"},
        ),
    log:
        f"{RESULTS}/logs/ablation-{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/ablation-{{task}}.tsv"
    wildcard_constraints:
        task="|".join(TASKS) or "none",
    resources:
        **asks("evaluate"),
    params:
        recipe=lambda wildcards: ablation.table_recipe(PLAN.config, task=wildcards.task),
    shell:
        "histill ablation" + CONFIGURED + "--task {wildcards.task}" + LOGGED


rule ablation:
    input:
        ablation_tables,
