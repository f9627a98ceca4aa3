# The run as a Workflow Run RO-Crate: what was made of what, by which versions, with digests (docs/provenance.md).
import os

# The crate holds a copy, but where this is a module that comes from a repository on the web.
SNAKEFILE = workflow.current_basedir.join("../../Snakefile").get_path_or_uri(secret_free=True)
COPIED = os.path.isfile(SNAKEFILE)


rule manifest:
    input:
        f"{RESULTS}/report.html",
        snakefile=[os.path.normpath(SNAKEFILE)] if COPIED else [],
    output:
        f"{RESULTS}/ro-crate-metadata.json",
        [f"{RESULTS}/workflow/Snakefile"] if COPIED else [],
    log:
        f"{RESULTS}/logs/manifest.log",
    localrule: True
    params:
        # The crate names config.json by its digest. The number is raised when it says something else of the same run.
        config=f"config:{digest([1, PLAN.config])}",
    shell:
        command("manifest", "--workflow {input.snakefile:q}" if COPIED else "")
