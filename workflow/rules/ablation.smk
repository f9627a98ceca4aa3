# By name: the disentangled method with one part after another taken away, trained, predicted and scored beside the full
# model. What a variant does not change is not trained again.
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
        before=f"before:{lineage.cohort(PLAN)}",
        seeds=PLAN.config["seeds"],
    shell:
        command(
            "train",
            "--task {wildcards.task} --method disentangled --variant {wildcards.variant:q}",
            "--stage {wildcards.stage} --out {output:q}",
            ONLY,
        )


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
        before=lambda wildcards: f"before:{variant_lineage(wildcards.task, wildcards.variant)}",
    shell:
        command("predict-stage", "--task {wildcards.task} --variant {wildcards.variant:q}")


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
        before=lambda wildcards: [
            f"before:{variant_lineage(wildcards.task, variant.name)}" for variant in ablation.variants(PLAN.config)
        ],
    shell:
        command("ablation", "--task {wildcards.task}")


rule ablation:
    input:
        ablation_tables,
