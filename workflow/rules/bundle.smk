# By name: the students of every task as bundles that need a slide alone (results/bundles/<task>-<method>-<stage>).
BUNDLE = f"{RESULTS}/bundles/{{task}}-{{method}}-{{stage}}"
STUDENTS = [method for method in PLAN.config["methods"]["run"] if "student" in stages.MODELS[method]]


rule export_bundle:
    input:
        f"{RESULTS}/evaluation/{{task}}.json",
    output:
        f"{BUNDLE}/bundle.json",
        report(
            f"{BUNDLE}/README.md",
            caption="../report/bundle.rst",
            category="Bundles",
            subcategory="{task}",
            labels={"model": "{method} {stage}", "what": "model card"},
        ),
    log:
        f"{RESULTS}/logs/bundle-{{task}}-{{method}}-{{stage}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/bundle-{{task}}-{{method}}-{{stage}}.tsv"
    wildcard_constraints:
        task="|".join(TASKS) or "none",
        method="|".join(STUDENTS) or "none",
        stage="student",
    resources:
        **asks("bundle"),
    params:
        recipe=lambda wildcards: stages.model_recipe(
            wildcards.method, wildcards.stage, PLAN.config, task=wildcards.task
        ),
        before=lambda wildcards: f"before:{lineage.evaluation(PLAN, wildcards.task)}",
        folder=lambda wildcards: BUNDLE.format(**wildcards),
    shell:
        command(
            "export",
            "--task {wildcards.task} --method {wildcards.method} --stage {wildcards.stage} --out {params.folder:q}",
        )


rule bundle:
    input:
        expand(f"{BUNDLE}/bundle.json", task=TASKS, method=STUDENTS, stage="student"),
