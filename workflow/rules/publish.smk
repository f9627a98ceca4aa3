# The products of a run, copied to the default storage (--default-storage-provider and --default-storage-prefix). By name:
# the bundles too.
if PREFIX:

    rule publish_product:
        input:
            f"{RESULTS}/{{product}}",
        output:
            TO_STORAGE("{product}"),
        log:
            f"{RESULTS}/logs/publish/{{product}}.log",
        wildcard_constraints:
            product="|".join(re.escape(product) for product in PRODUCTS),
        localrule: True
        params:
            before=f"before:{lineage.report(PLAN)}",
        shell:
            logged("cp {input:q} {output:q}")

    rule publish_bundle:
        input:
            f"{BUNDLE}/bundle.json",
        output:
            TO_STORAGE("bundles/{task}-{method}-{stage}.tar"),
        log:
            f"{RESULTS}/logs/publish/{{task}}-{{method}}-{{stage}}.log",
        localrule: True
        params:
            before=lambda wildcards: f"before:{lineage.evaluation(PLAN, wildcards.task)}",
            folder=lambda wildcards: BUNDLE.format(**wildcards),
        shell:
            logged("tar -C {params.folder:q} -cf {output:q} .")


rule publish:
    input:
        publications,
