# What the edited matrices look like beside the unedited ones.


rule weigh:
    input:
        model=paths.manifest("{model}"),
        deltas=deltas_weighed,
        state=adapter_state if ADAPTERS else [],
    output:
        weights=checkpoint("weights.parquet"),
        heatmap=checkpoint("heatmap.parquet"),
    log:
        "logs/weigh/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.log",
    benchmark:
        "benchmarks/weigh/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.tsv"
    group:
        group_of("weights")
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("weigh"),
    params:
        settings=STUDY.settings["weights"],
        runtime=settled(runtime, "model"),
        code=code("weigh.py"),
    message:
        "Weigh {wildcards.editor} after {wildcards.edits} edits"
    script:
        "../scripts/weigh.py"
