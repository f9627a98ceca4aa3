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
        **asks("cohort"),
    params:
        recipe=stages.recipe("cohort", PLAN.config),
        before=f"before:{lineage.features(PLAN)} {lineage.transcriptome(PLAN)}",
    shell:
        command("cohort")


# Nothing is trained before it: patients who are one under two ids, on both sides of a split, end the run here.
rule audit:
    input:
        f"{RECEIPTS}/cohort.json",
    output:
        f"{RECEIPTS}/audit.json",
    log:
        f"{RESULTS}/logs/audit.log",
    benchmark:
        f"{RESULTS}/benchmarks/audit.tsv"
    resources:
        **asks("audit"),
    params:
        recipe=stages.recipe("audit", PLAN.config),
        before=f"before:{lineage.cohort(PLAN)}",
    shell:
        command("audit")
