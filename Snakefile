# histill: slides and transcriptomes in, a WSI-only student and its report out.
#   snakemake --cores all                       everything, up to results/report.html
#   snakemake --cores all features              up to the feature stores; likewise transcriptome, cohort, report, ...
#   snakemake --cores all --configfile my.yaml  another config in place of config.yaml
# Needs no profile. On a cluster: snakemake --workflow-profile workflow/profiles/slurm
from snakemake.utils import min_version

min_version("9.20")

# A config given on the command line replaces config.yaml; Snakemake alone would merge the two.
if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# Used with --sdm apptainer alone.
container: IMAGE


include: "workflow/rules/inputs.smk"
include: "workflow/rules/storage.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/demo.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/encoders.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/transcriptome.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/bundle.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/manifest.smk"
include: "workflow/rules/publish.smk"


rule all:
    default_target: True
    input:
        [f"{RESULTS}/{product}" for product in PRODUCTS],
        published(PRODUCTS),
