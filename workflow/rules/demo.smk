# The synthetic cohort of the default config.
if "demo" in PLAN.config:

    rule demo:
        output:
            slides=[slide.path for slide in PLAN.sheets.slides.values()],
            sheets=expand(f"{RESULTS}/demo/{{name}}.csv", name=["slides", "clinical", "truth"]),
            expression=PLAN.sheets.expression,
        log:
            f"{RESULTS}/logs/demo.log",
        benchmark:
            f"{RESULTS}/benchmarks/demo.tsv"
        threads: 8
        resources:
            **asks("demo"),
        params:
            recipe=stages.recipe("demo", PLAN.config),
        shell:
            command("demo make", "--workers {threads}")
