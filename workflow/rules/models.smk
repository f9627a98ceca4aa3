# Training, prediction and evaluation.
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
        before=f"before:{lineage.cohort(PLAN)}",
        seeds=PLAN.config["seeds"],
    shell:
        command(
            "train",
            "--task {wildcards.task} --method {wildcards.method} --stage {wildcards.stage} --out {output:q}",
            ONLY,
        )


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
        before=lambda wildcards: f"before:{lineage.run(PLAN, wildcards.task)}",
    shell:
        command("predict-stage", "--task {wildcards.task}")


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
        before=lambda wildcards: f"before:{lineage.run(PLAN, wildcards.task)}",
    shell:
        command("evaluate", "--task {wildcards.task}")


# By name: everything trained, predicted and scored.
rule train:
    input:
        expand(f"{RECEIPTS}/predict-{{task}}.json", task=TASKS),
