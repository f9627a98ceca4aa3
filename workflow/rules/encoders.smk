# The encoder's weights, before any slide is encoded: fetched by one job, on the machine that started the run, since compute
# nodes often reach no hub. The receipt holds repository, commit and digests; extraction works offline after it.
if not PLAN.imports and PLAN.encoder_has_weights():

    rule encoder:
        input:
            PLAN.weight_files(),
        output:
            f"{RECEIPTS}/encoder.json",
        log:
            f"{RESULTS}/logs/encoder.log",
        localrule: True
        params:
            encoder="encoder:" + PLAN.encoder_digest(),
            name=PLAN.config["features"]["encoder"],
            weights=["--weights", PLAN.config["features"]["weights"]] if PLAN.config["features"]["weights"] else [],
        shell:
            "histill encoders prefetch {params.name:q} {params.weights:q} --out {output:q}" + LOGGED
