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
            mem_mb=8000,
            runtime=240,
        params:
            recipe=stages.recipe("features_import", PLAN.config),
        shell:
            "histill features import --config {CONFIG:q}" + LOGGED

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
            mem_mb=7000 + 2 * PLAN.slide_memory(),  # the next slide is opened while one is read
            runtime=480,
            gpu=PLAN.encoder_gpus(),
        params:
            recipe=stages.recipe("features", PLAN.config),
            encoder="encoder:" + PLAN.encoder_digest(),
        shell:
            "histill features extract --config {CONFIG:q} --batch {wildcards.batch} --threads {threads} --out {output:q}"
            + LOGGED

    rule features:
        input:
            batch_receipts("features"),
        output:
            f"{RECEIPTS}/features.json",
        log:
            f"{RESULTS}/logs/features.log",
        localrule: True
        params:
            folder=f"{RECEIPTS}/features",
            batches=[f"--batch {name}" for name in PLAN.batches],
        shell:
            "histill collect features --receipts {params.folder:q} {params.batches} --out {output:q}" + LOGGED
