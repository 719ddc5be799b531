# What the edited model can do, whether its edits took, and how far its activations moved.


rule evaluate_unedited:
    input:
        model=paths.manifest("{model}"),
        data=suite_data,
    output:
        result=paths.unedited("{model}", paths.abilities("{suite}")),
        samples=paths.unedited("{model}", paths.abilities("{suite}", ".items.parquet")),
    log:
        "logs/evaluate_unedited/{model}/{suite}.log",
    benchmark:
        "benchmarks/evaluate_unedited/{model}/{suite}.tsv"
    conda:
        "../../envs/evaluate.yaml"
    threads: THREADS
    resources:
        **asks("evaluate_unedited"),
    params:
        suite=suite_settings,
        folders=settled(lambda w: task_folders(w.suite), "suite"),
        runtime=settled(runtime, "model"),
        code=suite_code("evaluate_abilities.py", lambda wildcards: [family_entry(wildcards)]),
    message:
        "Evaluate the unedited {wildcards.model} on {wildcards.suite}"
    script:
        "../scripts/evaluate_abilities.py"


rule evaluate_abilities:
    input:
        model=paths.manifest("{model}"),
        deltas=deltas_upto,
        state=adapter_state if ADAPTERS else [],
        data=suite_data,
        verdict=verdict_before if SKIPPING else [],
    output:
        result=checkpoint(paths.abilities("{suite}")),
        samples=checkpoint(paths.abilities("{suite}", ".items.parquet")),
    log:
        "logs/evaluate_abilities/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}/{suite}.log",
    benchmark:
        "benchmarks/evaluate_abilities/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}/{suite}.tsv"
    group:
        group_of("evaluation")
    conda:
        "../../envs/evaluate.yaml"
    threads: THREADS
    resources:
        **asks("evaluate_abilities"),
    params:
        suite=suite_settings,
        folders=settled(lambda w: task_folders(w.suite), "suite"),
        runtime=settled(runtime, "model"),
        code=suite_code("evaluate_abilities.py", checkpoint_entries),
    message:
        "Evaluate {wildcards.editor} after {wildcards.edits} edits on {wildcards.suite}"
    script:
        "../scripts/evaluate_abilities.py"


rule screen_collapse:
    input:
        results=lambda w: suite_results(w, ".json"),
        samples=lambda w: suite_results(w, ".items.parquet"),
        previous=verdict_before if SKIPPING else [],
    output:
        checkpoint("collapse.json"),
    log:
        "logs/screen_collapse/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.log",
    group:
        group_of("evaluation")
    conda:
        "../../envs/report.yaml"
    resources:
        **asks("screen_collapse"),
    params:
        settings=STUDY.settings["collapse"],
        suites=lambda w: asked_tasks(STUDY.suites(cell(w), number(w))),
        folders=lambda w: {name: task_folders(name) for name in STUDY.suites(cell(w), number(w))},
        code=code("screen_collapse.py"),
    message:
        "See whether {wildcards.editor} has collapsed after {wildcards.edits} edits"
    script:
        "../scripts/screen_collapse.py"


rule measure_efficacy:
    input:
        model=paths.manifest("{model}"),
        facts=paths.facts("{dataset}"),
        sequence=paths.sequence("{dataset}", "{seed}"),
        known=settled(known_file, "model", "dataset"),
        reference=references,
        deltas=deltas_upto,
        state=adapter_state if ADAPTERS else [],
    output:
        checkpoint("efficacy.parquet"),
    log:
        "logs/measure_efficacy/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.log",
    benchmark:
        "benchmarks/measure_efficacy/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.tsv"
    group:
        group_of("chain")
    conda:
        "../../envs/evaluate.yaml"
    threads: THREADS
    resources:
        **asks("measure_efficacy"),
    params:
        link=lambda w: {
            "edits": number(w),
            "new_tokens": STUDY.settings["efficacy"]["new_tokens"],
        },
        runtime=settled(runtime, "model"),
        code=checkpoint_code("measure_efficacy.py"),
    message:
        "Probe all edits of {wildcards.editor} after {wildcards.edits} edits"
    script:
        "../scripts/measure_efficacy.py"


rule measure_drift:
    input:
        model=paths.manifest("{model}"),
        deltas=deltas_upto,
        state=adapter_state if ADAPTERS else [],
        text=moments_text(),
    output:
        checkpoint("drift.parquet"),
    log:
        "logs/measure_drift/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.log",
    benchmark:
        "benchmarks/measure_drift/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.tsv"
    group:
        group_of("chain")
    conda:
        "../../envs/evaluate.yaml"
    threads: THREADS
    resources:
        **asks("measure_drift"),
    params:
        settings={"text": STUDY.settings["moments"]["text"], **STUDY.settings["drift"]},
        runtime=settled(runtime, "model"),
        code=checkpoint_code("measure_drift.py"),
    message:
        "Measure the drift of {wildcards.editor} after {wildcards.edits} edits"
    script:
        "../scripts/measure_drift.py"
