# By name: all methods side by side, trained, predicted and scored on the same patients; one table and one figure a task.
# What the run has trained and predicted already is taken as it is.
from histill.methods import benchmark as side_by_side


def benchmark_training(wildcards):
    """Receipts of everything the benchmark trains for a task, and for all tasks."""
    return [
        RUN.format(task=stages.task_of(method, stage, wildcards.task), method=method, stage=stage, fold=fold, seed=seed)
        + ".json"
        for method, stage in side_by_side.training_stages(PLAN.config)
        for seed in (PLAN.config["seeds"] if PER_FOLD else [0])
        for fold in (range(PLAN.folds()) if PER_FOLD else [0])
    ]


def benchmark_shared(wildcards):
    """The run's own predictions, where the benchmark has all of its methods: so that none is predicted twice at once."""
    return [f"{RECEIPTS}/predict-{wildcards.task}.json"] if side_by_side.holds_the_run(PLAN.config) else []


def benchmark_tables(wildcards):
    """Tables of all tasks. What is wrong with the benchmark is said where it is asked for, and stops no other run."""
    if problems := side_by_side.check(PLAN.config):
        raise configuration.ConfigError(problems)
    return expand(f"{RESULTS}/benchmark/{{task}}.json", task=TASKS)


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
    shell:
        "histill benchmark" + CONFIGURED + "--task {wildcards.task} --predict" + LOGGED


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
    shell:
        "histill benchmark" + CONFIGURED + "--task {wildcards.task}" + LOGGED


rule benchmark:
    input:
        benchmark_tables,
