# What jobs ask a scheduler for, and what there is on a machine without one.
from histill import demands, device

CLUSTER = PLAN.config["cluster"]
GPUS = 0

# On a workstation as many jobs run as its memory holds, and as many on GPUs as it has; Snakemake alone counts nothing that it
# was given no number of. A cluster counts its own, and a number from the command line or a profile stands.
RESOURCES = workflow.resource_settings
if workflow.is_main_process and RESOURCES.nodes is None:
    if "gpu" not in RESOURCES.resources and (GPUS := device.gpus_of_machine()):
        workflow.register_resource("gpu", GPUS)
    if "mem_mb" not in workflow.global_resources:
        workflow.register_resource("mem_mb", demands.memory_of_machine())


def asks(stage, gpu=0):
    """Resources of a rule: memory and time by its batch, more at each further attempt; on a cluster partition and account.

    `gpu` may depend on the wildcards. What the config does not name is left out, so that the profile may name it.
    """
    resources = {
        "mem_mb": lambda wildcards, attempt: demands.memory_mb(PLAN, stage, wildcards.get("batch"), attempt),
        "runtime": lambda wildcards, attempt: demands.minutes(PLAN, stage, wildcards.get("batch"), attempt),
        "gpu": gpu,
        "slurm_partition": CLUSTER["partition"],
        "slurm_account": CLUSTER["account"],
    }
    if gpu and CLUSTER["gpu_partition"]:
        on_gpu = gpu if callable(gpu) else lambda wildcards: gpu
        resources["slurm_partition"] = lambda wildcards: CLUSTER["gpu_partition" if on_gpu(wildcards) else "partition"]
    return {name: value for name, value in resources.items() if value}
