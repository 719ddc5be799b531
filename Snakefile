# Collateral: what editing a language model's facts does to everything else it knows.
#
# What the study is:     config/config.yaml (or --configfile config/studies/….yaml, which is laid over it)
# Which file from which: workflow/rules/    How: src/collateral/    With what means: profiles/
#
# resources/models/{model}/manifest.json                       the model's files, by sha256
# resources/texts/                                             the beginning of a hub's text, where a study names one
# resources/downloads/                                         what came from the network or a mirror, as it came
# resources/datasets/{dataset}.parquet                         one row a fact
# results/sequences/{dataset}/seed-{seed}.parquet              the order of the edits
# results/prepared/{model}/                                    contexts, moments, known facts: once per model
# results/unedited/{model}/                                    the reference: abilities and probes before any edit
# results/edited/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}/
#     delta.parquet  state.safetensors  edits.parquet  after-edit.parquet
#     efficacy.parquet  drift.parquet  weights.parquet  heatmap.parquet  abilities/{suite}.json  abilities/{suite}.items.parquet
# results/edited/…/{editor}/singles-{edits}/                   edits from W_0, one at a time: edits, after-edit, single-weights
# results/tables/*.parquet *.csv                               one row a number, with its full key: docs/tables.md
# results/report/{index,abilities,edits,weights,cost}.html     the report; run.json: what it was made from
# results/figures/{page}/{figure}.{csv,svg,png}                 its figures, at the size of a paper's column


from os.path import exists

DEFAULTS = "config/config.yaml"  # of the working directory, else of this project


configfile: DEFAULTS if exists(DEFAULTS) else f"{workflow.current_basedir}/{DEFAULTS}"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/needs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/edit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/weigh.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/running.smk"


rule all:
    default_target: True
    input:
        paths.PAGE,
        rules.gather.output,
        rules.infer.output,
        rules.gather.input,  # also what the report does not read itself: a deleted file is missed
        results.list_chain_files(STUDY, "delta.parquet"),
        results.list_chain_files(STUDY, "state.safetensors"),
