# Slides, batch by batch: inspect, tissue, tiles. Each stage's own rule collects the batches.
if not PLAN.imports:

    rule inspect_batch:
        input:
            slides=batch_slides,
        output:
            f"{RECEIPTS}/inspect/{{batch}}.json",
        log:
            f"{RESULTS}/logs/inspect/{{batch}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/inspect/{{batch}}.tsv"
        resources:
            **asks("inspect"),
        params:
            recipe=stages.recipe("inspect", PLAN.config),
            demo=f"demo:{lineage.demo(PLAN)}",
            rows=lambda wildcards: f"rows:{PLAN.rows(wildcards.batch)}",
        shell:
            command("inspect", "--batch {wildcards.batch} --out {output:q}")

    rule inspect:
        input:
            batch_receipts("inspect"),
        output:
            f"{RECEIPTS}/inspect.json",
        log:
            f"{RESULTS}/logs/inspect.log",
        localrule: True
        params:
            before=f"before:{lineage.slides(PLAN, 'inspect')}",
        shell:
            command("collect inspect")

    rule tissue_batch:
        input:
            before=f"{RECEIPTS}/inspect/{{batch}}.json",
        output:
            f"{RECEIPTS}/tissue/{{batch}}.json",
        log:
            f"{RESULTS}/logs/tissue/{{batch}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/tissue/{{batch}}.tsv"
        resources:
            **asks("tissue", gpu=PLAN.tissue_gpus()),
        params:
            recipe=stages.recipe("tissue", PLAN.config),
            before=before("inspect"),
        shell:
            command("tissue", "--batch {wildcards.batch} --out {output:q}")

    rule tissue:
        input:
            batch_receipts("tissue"),
        output:
            f"{RECEIPTS}/tissue.json",
        log:
            f"{RESULTS}/logs/tissue.log",
        localrule: True
        params:
            before=f"before:{lineage.slides(PLAN, 'tissue')}",
        shell:
            command("collect tissue")

    rule tiles_batch:
        input:
            before=f"{RECEIPTS}/tissue/{{batch}}.json",
        output:
            f"{RECEIPTS}/tiles/{{batch}}.json",
        log:
            f"{RESULTS}/logs/tiles/{{batch}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/tiles/{{batch}}.tsv"
        resources:
            **asks("tiles"),
        params:
            recipe=stages.recipe("tiles", PLAN.config),
            before=before("tissue"),
        shell:
            command("tiles", "--batch {wildcards.batch} --out {output:q}")

    rule tiles:
        input:
            batch_receipts("tiles"),
        output:
            f"{RECEIPTS}/tiles.json",
        log:
            f"{RESULTS}/logs/tiles.log",
        localrule: True
        params:
            before=f"before:{lineage.slides(PLAN, 'tiles')}",
        shell:
            command("collect tiles")
