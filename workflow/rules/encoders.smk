# Weights of the encoders, before any slide is encoded: fetched by one job, on the machine that started the run, since compute
# nodes often reach no hub. The receipt holds repository, commit and digests; extraction works offline after it.
if not PLAN.imports and PLAN.encoders_with_weights():

    rule encoder:
        input:
            lambda wildcards: PLAN.weight_files(wildcards.encoder),
        output:
            f"{RECEIPTS}/encoders/{{encoder}}.json",
        log:
            f"{RESULTS}/logs/encoders/{{encoder}}.log",
        localrule: True
        params:
            encoder=lambda wildcards: f"encoder:{PLAN.encoder_digest(wildcards.encoder)}",
            files=lambda wildcards: f"files:{digest(PLAN.weight_stamps(wildcards.encoder))}",
            weights=lambda wildcards: (
                ["--weights", PLAN.encoders()[wildcards.encoder]] if PLAN.encoders()[wildcards.encoder] else []
            ),
        shell:
            logged("histill encoders prefetch {wildcards.encoder:q} {params.weights:q} --out {output:q}")
