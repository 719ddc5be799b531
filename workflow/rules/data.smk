# Models, facts and the order of the edits.
#
# What may lie in resources/ for several studies is `update`: Snakemake then leaves the file alone until its job has
# found it right, or has written it whole. Without, it would remove a file that another study is reading.


rule download_model:
    input:
        model_files,
    output:
        update(paths.manifest("{model}")),
    log:
        "logs/download_model/{model}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("download_model"),
    params:
        source=lambda w: STUDY.settings["models"][w.model]["source"],
        family=lambda w: STUDY.model_family(w.model),
        code=code("download_model.py"),
    message:
        "Fetch the model {wildcards.model}"
    script:
        "../scripts/download_model.py"


rule download:
    output:
        update(paths.downloads("{download}")),
    log:
        "logs/download/{download}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("download"),
        mirror=MIRROR,  # no parameter: the same file from elsewhere changes nothing
    params:
        source=download_source,
        code=code("download.py"),
    message:
        "Download {wildcards.download}"
    script:
        "../scripts/download.py"


rule download_text:
    output:
        update("resources/texts/{text}.txt"),
    log:
        "logs/download_text/{text}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("download_text"),
    params:
        source=staging.find_hub_text(STUDY),
        code=code("download_text.py"),
    message:
        "Bring the text of moments.text from the hub"
    script:
        "../scripts/download_text.py"


rule load_facts:
    input:
        dataset_files,
    output:
        update(paths.facts("{dataset}")),
    log:
        "logs/load_facts/{dataset}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("load_facts"),
    params:
        dataset=lambda w: loading(w, "limit", "questions"),
        code=loader_code,
    message:
        "Read the facts of {wildcards.dataset}"
    script:
        "../scripts/load_facts.py"


rule load_training_facts:
    input:
        training_source,
    output:
        update(paths.training_facts("{dataset}")),
    log:
        "logs/load_training_facts/{dataset}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("load_training_facts"),
    params:
        dataset=training_loading,
        code=loader_code,
    message:
        "Read the facts that an editor trains on for {wildcards.dataset}"
    script:
        "../scripts/load_facts.py"


rule prepare_benchmark:
    input:
        raw_files,
    output:
        update(paths.benchmark("{benchmark}", "{split}")),
    log:
        "logs/prepare_benchmark/{benchmark}/{split}.log",
    conda:
        "../../envs/evaluate.yaml"
    resources:
        **asks("prepare_benchmark"),
    params:
        source=lambda w: benchmark_source(w.benchmark, w.split),
        code=code("prepare_benchmark.py"),
    message:
        "Bring the {wildcards.split} items of {wildcards.benchmark} into their public schema"
    script:
        "../scripts/prepare_benchmark.py"


rule sample_sequence:
    input:
        paths.facts("{dataset}"),
    output:
        paths.sequence("{dataset}", "{seed}"),
    log:
        "logs/sample_sequence/{dataset}/seed-{seed}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("sample_sequence"),
    params:
        conflicts=lambda w: STUDY.settings["datasets"][w.dataset]["conflicts"],
        code=code("sample_sequence.py"),
    message:
        "Draw the order of the edits of {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/sample_sequence.py"


rule staged:
    input:
        staged_files,
    message:
        "All that needs a network is there"
