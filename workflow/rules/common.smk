# The checked plan of this run, and what the rules share. Everything a rule depends on is a file or a plain parameter.
import json
import sys

from histill import plan, stages
from histill.errors import HistillError
from histill.provenance import digest

try:
    PLAN = plan.load(config)
except HistillError as error:
    # Nothing has been written yet; a traceback would bury the list of problems.
    print(f"histill: {error}", file=sys.stderr)
    sys.exit(1)

# The report's captions read the config; they need the defaults too.
config.update(PLAN.config)
RESULTS = PLAN.config["results"]
RECEIPTS = f"{RESULTS}/receipts"
TASKS = list(PLAN.config["tasks"])
# Ancient: the file is rewritten on any change of the config; what reruns is decided by each rule's recipe.
CONFIG = ancient(f"{RESULTS}/config.json")
# A failing stage shows the end of its log, which ends in the reason and the mend.
LOGGED = " > {log} 2>&1 || {{ tail -n 30 {log} >&2; exit 1; }}"


wildcard_constraints:
    batch="[A-Za-z0-9._-]+",
    task="[A-Za-z][A-Za-z0-9_-]*",
    method="[a-z][a-z-]*",
    stage="[a-z]+",
    fold="[0-9]+",
    seed="[0-9]+",


def batch_slides(wildcards):
    """Slide files of a batch."""
    return [slide.path for slide in PLAN.slides(wildcards.batch)]


def batch_rows(wildcards):
    """Digest of what the sheet says of a batch's slides: another path or mpp inspects them again."""
    return "rows:" + digest([[slide.slide_id, slide.path, slide.mpp] for slide in PLAN.slides(wildcards.batch)])


def batch_receipts(stage):
    """Receipts of all batches of a stage."""
    return expand(f"{RECEIPTS}/{stage}/{{batch}}.json", batch=list(PLAN.batches))


rule config:
    output:
        f"{RESULTS}/config.json",
    log:
        f"{RESULTS}/logs/config.log",
    params:
        text=json.dumps(PLAN.config, indent=1),
    shell:
        "printf '%s\\n' {params.text:q} > {output} 2> {log}"
