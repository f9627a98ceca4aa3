# The expression table, read, checked and normalised sample by sample.
if PLAN.sheets.expression:

    rule transcriptome:
        input:
            table=PLAN.expression_files(),
            about=PLAN.matrix_files(),
            gene_sets=PLAN.gene_set_files(),
        output:
            f"{RECEIPTS}/transcriptome.json",
        log:
            f"{RESULTS}/logs/transcriptome.log",
        benchmark:
            f"{RESULTS}/benchmarks/transcriptome.tsv"
        resources:
            **asks("transcriptome"),
        params:
            recipe=stages.recipe("transcriptome", PLAN.config),
            demo=f"demo:{lineage.demo(PLAN)}",
        shell:
            command("transcriptome")
