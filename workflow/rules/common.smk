# The checked plan of this run, and what the rules share. Everything a rule depends on is a file or a plain parameter.
import sys

from histill import config as configuration
from histill import device, plan, stages
from histill.errors import HistillError
from histill.provenance import digest, write_json

try:
    for path in workflow.configfiles:
        configuration.read(path)  # of a key that is given twice, Snakemake would take the last in silence
    PLAN = plan.load(config)
except HistillError as error:
    # Nothing has been written yet; a traceback would bury the list of problems.
    print(f"histill: {error}", file=sys.stderr)
    sys.exit(1)

# On a workstation as many jobs run on GPUs as it has; Snakemake alone counts nothing that it was given no number of. A
# cluster counts its own, and a number from the command line or a profile stands.
RESOURCES, GPUS = workflow.resource_settings, 0
if workflow.is_main_process and RESOURCES.nodes is None and "gpu" not in RESOURCES.resources:
    if GPUS := device.gpus_of_machine():
        workflow.register_resource("gpu", GPUS)

# The report's captions read the config; they need the defaults too.
config.update(PLAN.config)
RESULTS = PLAN.config["results"]
RECEIPTS = f"{RESULTS}/receipts"
TASKS = list(PLAN.config["tasks"])
# The complete config of this run, for the stages to read. It is no input of a rule: what reruns is decided by each rule's
# recipe. (As an `ancient` input made by a rule it would hide changed parameters: Snakemake does not look at jobs behind
# one that runs.)
CONFIG = f"{RESULTS}/config.json"
# A failing stage shows the end of its log, which ends in the reason and the mend.
LOGGED = " > {log:q} 2>&1 || {{ tail -n 30 {log:q} >&2; exit 1; }}"


wildcard_constraints:
    batch="[A-Za-z0-9._-]+",
    task="[A-Za-z][A-Za-z0-9_-]*",
    method="[a-z][a-z-]*",
    variant="[a-z][a-z0-9-]*",
    stage="[a-z_]+",
    encoder="[A-Za-z0-9._-]+",
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


onstart:
    write_json(CONFIG, PLAN.config)
