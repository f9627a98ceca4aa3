# By name: all methods side by side, trained, predicted and scored on the same patients; one table and one figure a task.
# What the run has trained and predicted already is taken as it is.
rule predict_benchmark:
    input:
        benchmark_training,
        benchmark_shared,
    output:
        f"{RECEIPTS}/{side_by_side.RECEIPT}",
    log:
        f"{RESULTS}/logs/predict-benchmark-{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict-benchmark-{{task}}.tsv"
    resources:
        **asks("predict", gpu=min(1, max(PLAN.training_gpus(method) for method in side_by_side.methods(PLAN.config)))),
    params:
        recipe=lambda wildcards: stages.recipe("predict", PLAN.config, task=wildcards.task),
        methods=side_by_side.methods(PLAN.config),
        before=benchmark_lineage,
    shell:
        command("benchmark", "--task {wildcards.task} --predict")


rule benchmark_table:
    input:
        f"{RECEIPTS}/{side_by_side.RECEIPT}",
    output:
        f"{RESULTS}/benchmark/{{task}}.json",
        report(
            f"{RESULTS}/benchmark/{{task}}.tsv",
            caption="../report/benchmark.rst",
            category="Benchmark",
            subcategory="{task}",
            labels={"what": "table"},
        ),
        f"{RESULTS}/benchmark/{{task}}.md",
        report(
            f"{RESULTS}/benchmark/{{task}}.png",
            caption="../report/benchmark.rst",
            category="Benchmark",
            subcategory="{task}",
            labels={"what": "figure"},
        ),
    log:
        f"{RESULTS}/logs/benchmark-{{task}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmark-{{task}}.tsv"
    resources:
        **asks("evaluate"),
    params:
        recipe=lambda wildcards: side_by_side.table_recipe(PLAN.config, task=wildcards.task),
        before=benchmark_lineage,
    shell:
        command("benchmark", "--task {wildcards.task}")


rule benchmark:
    input:
        benchmark_tables,
