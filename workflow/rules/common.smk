# The checked plan of this run, and what the rules share. Everything a rule depends on is a file or a plain parameter.
import os
import shlex
import sys

from snakemake.settings.types import DeploymentMethod

from histill import config as configuration
from histill import lineage, plan, stages
from histill.errors import HistillError
from histill.provenance import digest, write_json
from histill.storage import is_of_the_future


def stop(error):
    """Nothing has been written yet; a traceback would bury the list of problems."""
    print(f"histill: {error}", file=sys.stderr)
    sys.exit(1)


try:
    for path in workflow.configfiles:
        configuration.read(path)  # of a key that is given twice, Snakemake would take the last in silence
    PLAN = plan.load(config, look=workflow.is_main_process)  # a job of the run need not
    # Only receipts are tracked. The stores and tables that they name would stay behind.
    if workflow.modifier.path_modifier.replace_prefix(PLAN.config["results"]) != PLAN.config["results"]:
        raise HistillError(
            "the results cannot be moved by the prefix of a module",
            mend="leave it out and name another folder in the config key 'results', which every job sees; docs/install.md",
        )
except HistillError as error:
    stop(error)

# The report's captions read the config; they need the defaults too.
config.update(PLAN.config)
RESULTS = PLAN.config["results"]
RECEIPTS = f"{RESULTS}/receipts"
TASKS = list(PLAN.config["tasks"])
IMAGE = PLAN.config["container"]
# The complete config of this run, for the stages to read. It is no job's input: what reruns is decided by the recipes. (As
# an `ancient` input made by a job it would hide changed parameters: Snakemake does not look at jobs behind one that runs.)
CONFIG = f"{RESULTS}/config.json"

if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    file = IMAGE.removeprefix("file://")
    if "://" not in file and not os.path.isfile(file):
        mend = f"in histill's source tree: apptainer build {IMAGE} envs/apptainer.def; or name another in the config key 'container'"
        stop(HistillError(f"there is no image {IMAGE} to run jobs in", mend=mend))


wildcard_constraints:
    batch="[A-Za-z0-9._-]+",
    task="[A-Za-z][A-Za-z0-9_-]*",
    method="[a-z][a-z-]*",
    variant="[a-z][a-z0-9-]*",
    stage="[a-z_]+",
    encoder="[A-Za-z0-9._-]+",
    fold="[0-9]+",
    seed="[0-9]+",


def logged(command):
    """A failing command shows the end of its log, which ends in the reason and the mend; on a full disk there may be none."""
    return (
        f"{command} > {{log:q}} 2>&1 || {{{{ tail -n 30 {{log:q}} >&2; echo >> {{log:q}}"
        " || echo 'histill: the log cannot be written: free space, or have it mounted for writing, and run again' >&2; exit 1; }}"
    )


def command(stage, *arguments):
    """Shell command of a stage with the config of this run. The config's path stands in it as it is, not as {CONFIG}: where
    this workflow is a module, Snakemake fills in the names of the workflow that uses it."""
    return logged(" ".join(["histill", stage, "--config", shlex.quote(CONFIG), *filter(None, arguments)]))


def batch_slides(wildcards):
    """Slide files of a batch. Of one whose time of change lies in the future, as by a scanner's wrong clock, Snakemake would
    take the receipt, which is older, for a failure; such a file is read, and not watched."""
    return [slide.path for slide in PLAN.slides(wildcards.batch) if not is_of_the_future(slide.path)]


def before(stage):
    """What a batch stands on, of a slide stage."""
    return lambda wildcards: f"before:{lineage.slides(PLAN, stage, wildcards.batch)}"


def batch_receipts(stage):
    """Receipts of all batches of a stage."""
    return expand(f"{RECEIPTS}/{stage}/{{batch}}.json", batch=list(PLAN.batches))


# A workflow that uses this one as a module calls both in its own: onstart: histill.onstart(); onerror: histill.onerror()
onstart:
    try:
        write_json(CONFIG, PLAN.config)
    except HistillError as error:
        stop(error)


# Of a job that failed Snakemake notes what it has seen of its inputs, as if it had been done; a changed sheet would then pass
# for the one that the results behind were made of.
onerror:
    for job in workflow.dag.jobs:
        files = [file for file in job.output if not file.is_storage]
        if not all(os.path.exists(file) for file in files):
            workflow.persistence.cleanup(job)
