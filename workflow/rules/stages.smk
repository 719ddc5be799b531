# One stage alone, as a target by name; what it builds on is made where it is lacking. And: gather, infer, report.


rule edit_all:
    input:
        results.everywhere(STUDY, "delta.parquet"),
        results.singles(STUDY, "edits.parquet"),
    message:
        "All edits are made"


rule probe_all:
    input:
        results.everywhere(STUDY, "efficacy.parquet"),
    message:
        "All edits are probed"


rule drift_all:
    input:
        results.everywhere(STUDY, "drift.parquet"),
    message:
        "All checkpoints' drift is measured"


rule weigh_all:
    input:
        results.everywhere(STUDY, "weights.parquet"),
    message:
        "All checkpoints are weighed"


rule evaluate_all:
    input:
        results.abilities(STUDY, ".json"),
    message:
        "All checkpoints are evaluated"
