# Models, facts and the order of the edits.


rule download_model:
    output:
        "resources/models/{model}/manifest.json",
    log:
        "logs/download_model/{model}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=lambda w: STUDY.settings["models"][w.model]["source"],
        code=code("download_model.py"),
    message:
        "Fetch the model {wildcards.model}"
    script:
        "../scripts/download_model.py"


rule load_facts:
    input:
        dataset_files,
    output:
        "resources/datasets/{dataset}.parquet",
    log:
        "logs/load_facts/{dataset}.log",
    conda:
        "../../envs/edit.yaml"
    params:
        dataset=lambda w: {
            name: STUDY.settings["datasets"][w.dataset][name] for name in ("loader", "path", "limit")
        },
        code=lambda w: code(
            "load_facts.py",
            f"collateral.sources.{STUDY.settings['datasets'][w.dataset]['loader']}",
        ),
    message:
        "Read the facts of {wildcards.dataset}"
    script:
        "../scripts/load_facts.py"


rule sample_sequence:
    input:
        "resources/datasets/{dataset}.parquet",
    output:
        "results/sequences/{dataset}/seed-{seed}.parquet",
    log:
        "logs/sample_sequence/{dataset}/seed-{seed}.log",
    conda:
        "../../envs/edit.yaml"
    params:
        conflicts=lambda w: STUDY.settings["datasets"][w.dataset]["conflicts"],
        code=code("sample_sequence.py"),
    message:
        "Draw the order of the edits of {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/sample_sequence.py"
