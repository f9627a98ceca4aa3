# Features: extracted batch by batch, or imported in one go. Either way receipts/features.json lists every slide.
if PLAN.imports:

    rule features:
        input:
            sources=PLAN.feature_sources(),
        output:
            f"{RECEIPTS}/features.json",
        log:
            f"{RESULTS}/logs/features.log",
        benchmark:
            f"{RESULTS}/benchmarks/features.tsv"
        resources:
            **asks("features_import"),
        params:
            recipe=stages.recipe("features_import", PLAN.config),
            rows=f"rows:{PLAN.rows()}",
        shell:
            command("features import")

else:

    rule features_batch:
        input:
            before=f"{RECEIPTS}/tiles/{{batch}}.json",
            encoders=[f"{RECEIPTS}/encoders/{name}.json" for name in PLAN.encoders_with_weights()],
        output:
            f"{RECEIPTS}/features/{{batch}}.json",
        log:
            f"{RESULTS}/logs/features/{{batch}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/features/{{batch}}.tsv"
        priority: 1
        threads: min(PLAN.encoder_threads(), (RESOURCES.cores or 1) // GPUS or 1) if GPUS else PLAN.encoder_threads()
        resources:
            **asks("features", gpu=PLAN.encoder_gpus()),
        params:
            recipe=stages.recipe("features", PLAN.config),
            encoder=f"encoder:{PLAN.encoder_digest()}",
            before=before("tiles"),
        shell:
            command("features extract", "--batch {wildcards.batch} --threads {threads} --out {output:q}")

    rule features:
        input:
            batch_receipts("features"),
        output:
            f"{RECEIPTS}/features.json",
        log:
            f"{RESULTS}/logs/features.log",
        localrule: True
        params:
            before=f"before:{lineage.features(PLAN)}",
        shell:
            command("collect features")
