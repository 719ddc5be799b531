# One stage alone, as a target by name; its inputs are built where they are missing. Also: gather, infer, report.


rule edit_all:
    input:
        results.list_chain_files(STUDY, "delta.parquet"),
        results.list_single_edit_files(STUDY, "edits.parquet"),
    message:
        "All edits are made"


rule probe_all:
    input:
        results.list_chain_files(STUDY, "efficacy.parquet"),
    message:
        "All edits are probed"


rule drift_all:
    input:
        results.list_chain_files(STUDY, "drift.parquet"),
    message:
        "All checkpoints' drift is measured"


rule weigh_all:
    input:
        results.list_chain_files(STUDY, "weights.parquet"),
    message:
        "All checkpoints are weighed"


rule evaluate_all:
    input:
        results.list_ability_files(STUDY, ".json"),
    message:
        "All checkpoints are evaluated"
