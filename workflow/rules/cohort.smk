# Slides, transcriptomes and outcomes joined by patient; folds.
rule cohort:
    input:
        features=f"{RECEIPTS}/features.json",
        transcriptome=[f"{RECEIPTS}/transcriptome.json"] if PLAN.sheets.expression else [],
        sheets=PLAN.sheet_files(),
    output:
        f"{RECEIPTS}/cohort.json",
    log:
        f"{RESULTS}/logs/cohort.log",
    benchmark:
        f"{RESULTS}/benchmarks/cohort.tsv"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        recipe=stages.recipe("cohort", PLAN.config),
    shell:
        "histill cohort --config {CONFIG:q}" + LOGGED
