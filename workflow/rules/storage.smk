# With a default storage provider the products of a run go where its prefix says. What the run stands on stays on the file
# system: receipts, the only files that Snakemake tracks, name stores and models that lie beside them.
import re
from pathlib import Path

from snakemake.io import is_flagged

PROVIDER = workflow.storage_settings.default_storage_provider
PREFIX = workflow.storage_settings.default_storage_prefix if PROVIDER else None
PLACE = workflow.modifier.path_modifier
TO_STORAGE = PLACE.apply_default_storage
PRODUCTS = [
    "report.html",
    "ro-crate-metadata.json",
    *(f"evaluation/{task}.{kind}" for task in TASKS for kind in ("json", "tsv")),
]

WRONG = None
if workflow.storage_settings.default_storage_prefix and not PROVIDER:
    WRONG = "a place is named for the products, but no storage provider"
elif PROVIDER and PROVIDER != "fs" and not PREFIX:
    WRONG = f"the storage provider {PROVIDER} is given without a place, so nothing would reach it"
elif PREFIX and re.search("[{}]", PREFIX):
    WRONG = f"the place in the storage holds braces, which Snakemake would fill in: {PREFIX}"
elif PREFIX and PROVIDER == "fs" and Path(PREFIX).resolve().is_relative_to(Path(RESULTS).resolve()):
    WRONG = f"the place in the storage lies in the folder of the results: {PREFIX}"
if WRONG:
    stop(
        HistillError(
            WRONG,
            mend="--default-storage-provider s3 --default-storage-prefix s3://BUCKET/RUN, with fs another folder; docs/install.md",
        )
    )


def stays(path, property=None):
    """In place of what Snakemake asks for the place of every path of a rule, and of every target."""
    return path if is_flagged(path, "storage_object") else local(path)


if PROVIDER:
    PLACE.modify = PLACE.apply_default_storage = stays


def published(products):
    """Places of products in the default storage; none without one."""
    return [TO_STORAGE(product) for product in products] if PREFIX else []


def publications(wildcards):
    """All products, and the bundles."""
    if not PREFIX:
        raise HistillError(
            "there is no storage to publish to",
            mend="name it: --default-storage-provider fs --default-storage-prefix FOLDER; docs/install.md",
        )
    return published([*PRODUCTS, *expand("bundles/{task}-{method}-student.tar", task=TASKS, method=STUDENTS)])
