# What is computed once from the unedited model and shared by all editors.


rule sample_contexts:
    input:
        model=paths.manifest("{model}"),
    output:
        paths.contexts("{model}"),
    log:
        "logs/sample_contexts/{model}.log",
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("sample_contexts"),
    params:
        settings=STUDY.settings["contexts"],
        runtime=settled(runtime, "model"),
        code=model_code("sample_contexts.py"),
    message:
        "Sample context templates from {wildcards.model}"
    script:
        "../scripts/sample_contexts.py"


rule measure_moments:
    input:
        model=paths.manifest("{model}"),
        text=moments_text(),
    output:
        paths.moments("{model}", "{layers}"),
    log:
        "logs/measure_moments/{model}/{layers}.log",
    benchmark:
        "benchmarks/measure_moments/{model}/{layers}.tsv"
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("measure_moments"),
    params:
        layers=lambda w: list(paths.parse_layers(w.layers)),
        settings=STUDY.settings["moments"],
        runtime=settled(runtime, "model"),
        code=model_code("measure_moments.py"),
    message:
        "Measure the second moments of {wildcards.model}, layers {wildcards.layers}"
    script:
        "../scripts/measure_moments.py"


rule probe_known:
    input:
        model=paths.manifest("{model}"),
        facts=paths.facts("{dataset}"),
    output:
        paths.known("{model}", "{dataset}"),
    log:
        "logs/probe_known/{model}/{dataset}.log",
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("probe_known"),
    params:
        runtime=settled(runtime, "model"),
        code=model_code("probe_known.py"),
    message:
        "Find the facts of {wildcards.dataset} that {wildcards.model} knows"
    script:
        "../scripts/probe_known.py"


rule measure_reference:
    input:
        model=paths.manifest("{model}"),
        facts=paths.facts("{dataset}"),
        sequence=paths.sequence("{dataset}", "{seed}"),
        known=settled(known_file, "model", "dataset"),
    output:
        paths.reference("{model}", "{dataset}", "{seed}", "{edits}"),
    log:
        "logs/measure_reference/{model}/{dataset}/seed-{seed}/edits-{edits}.log",
    benchmark:
        "benchmarks/measure_reference/{model}/{dataset}/seed-{seed}/edits-{edits}.tsv"
    conda:
        "../../envs/evaluate.yaml"
    threads: THREADS
    resources:
        **asks("measure_reference"),
        last_edit=lambda w: STUDY.last_checkpoint(order(w)),  # checked, but a later checkpoint probes nothing anew
    params:
        block=lambda w: {
            "start": list_reference_blocks(number(w))[-1][0],
            "end": number(w),
            "new_tokens": STUDY.settings["efficacy"]["new_tokens"],
        },
        runtime=settled(runtime, "model"),
        code=model_code("measure_reference.py"),
    message:
        "Probe the unedited {wildcards.model} on the facts up to number {wildcards.edits}"
    script:
        "../scripts/measure_reference.py"


rule train_hypernetwork:
    input:
        model=paths.manifest("{model}"),
        facts=paths.facts("{dataset}"),
        sequence=paths.sequence("{dataset}", "{seed}"),
        known=settled(known_file, "model", "dataset"),
        training=training_file,
    output:
        paths.hypernetwork("{model}", "{dataset}", "{seed}", "{learner}"),
    log:
        "logs/train_hypernetwork/{model}/{dataset}/seed-{seed}/{learner}.log",
    benchmark:
        "benchmarks/train_hypernetwork/{model}/{dataset}/seed-{seed}/{learner}.tsv"
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("train_hypernetwork"),
        last_edit=lambda w: STUDY.last_edit(order(w), w.learner),  # checked, but a later checkpoint retrains nothing
    params:
        training=lambda w: {"seed": int(w.seed), **STUDY.training(w.model, w.learner)},
        runtime=settled(runtime, "model"),
        code=training_code,
    message:
        "Train the hypernetwork of {wildcards.learner} for {wildcards.model}"
    script:
        "../scripts/train_hypernetwork.py"
