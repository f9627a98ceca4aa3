# One self-contained page of everything above, and the figures of the tasks as files.
rule report:
    input:
        f"{RECEIPTS}/features.json",
        f"{RECEIPTS}/cohort.json",
        f"{RECEIPTS}/audit.json",
        [] if PLAN.imports else expand(f"{RECEIPTS}/{{stage}}.json", stage=["inspect", "tissue", "tiles"]),
        [f"{RECEIPTS}/transcriptome.json"] if PLAN.sheets.expression else [],
        expand(f"{RESULTS}/evaluation/{{task}}.json", task=TASKS),
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"what": "the whole page"},
        ),
        report(
            directory(f"{RESULTS}/figures"),
            patterns=["{task}/{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            subcategory="{task}",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    resources:
        **asks("report"),
    params:
        recipe=stages.recipe("report", PLAN.config),
        before=f"before:{lineage.report(PLAN)}",
    shell:
        command("report")
