# The chain of checkpoints: each job reads the increments that make the one before it, and writes its own.


rule edit:
    input:
        model=paths.manifest("{model}"),
        facts=paths.facts("{dataset}"),
        sequence=paths.sequence("{dataset}", "{seed}"),
        known=settled(known_file, "model", "dataset"),
        contexts=paths.contexts("{model}"),
        moments=settled(moments_file, "model", "editor"),
        hypernetwork=settled(hypernetwork_file, *Cell._fields),
        reference=lambda w: references(w, previous(w)),
        deltas=deltas_begun_from,
        state=lambda w: at(cell(w), earlier(w)[-1:], "state.safetensors"),
        like=likeness if PLACEBOS else [],
    output:
        delta=checkpoint("delta.parquet"),
        state=checkpoint("state.safetensors"),
        records=checkpoint("edits.parquet"),
        after_edit=checkpoint("after-edit.parquet"),
    log:
        "logs/edit/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.log",
    benchmark:
        "benchmarks/edit/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.tsv"
    group:
        group_of("chain")
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("edit"),
    params:
        recipe=settled(recipe, "model", "editor"),
        link=lambda w: {
            "start": previous(w),
            "edits": number(w),
            "seed": int(w.seed),
            "new_tokens": STUDY.settings["efficacy"]["new_tokens"],
        },
        runtime=settled(runtime, "model"),
        code=edit_code("edit.py"),
    message:
        "Edit {wildcards.model} with {wildcards.editor} up to {wildcards.edits} edits"
    script:
        "../scripts/edit.py"


rule edit_singly:
    input:
        model=paths.manifest("{model}"),
        facts=paths.facts("{dataset}"),
        sequence=paths.sequence("{dataset}", "{seed}"),
        known=settled(known_file, "model", "dataset"),
        contexts=paths.contexts("{model}"),
        moments=settled(moments_file, "model", "editor"),
        hypernetwork=settled(hypernetwork_file, *Cell._fields),
        reference=lambda w: references(w, previous(w)),
        like=likeness if PLACEBOS else [],
    output:
        records=single("edits.parquet"),
        after_edit=single("after-edit.parquet"),
        weights=single("single-weights.parquet"),
    log:
        "logs/edit_singly/{model}/{dataset}/seed-{seed}/{editor}/singles-{edits}.log",
    benchmark:
        "benchmarks/edit_singly/{model}/{dataset}/seed-{seed}/{editor}/singles-{edits}.tsv"
    group:
        group_of("chain")
    conda:
        "../../envs/edit.yaml"
    threads: THREADS
    resources:
        **asks("edit_singly"),
    params:
        recipe=settled(recipe, "model", "editor"),
        link=lambda w: {
            "start": previous(w),
            "edits": number(w),
            "seed": int(w.seed),
            "new_tokens": STUDY.settings["efficacy"]["new_tokens"],
        },
        weigh=lambda w: {name: STUDY.settings["weights"][name] for name in ("thresholds", "quantiles")},
        runtime=settled(runtime, "model"),
        code=edit_code("edit_singly.py"),
    message:
        "Edit {wildcards.model} with {wildcards.editor}, one at a time, up to fact {wildcards.edits}"
    script:
        "../scripts/edit_singly.py"


rule export_checkpoint:
    input:
        model=paths.manifest("{model}"),
        deltas=deltas_upto,
    output:
        directory(checkpoint("exported")),
    log:
        "logs/export_checkpoint/{model}/{dataset}/seed-{seed}/{editor}/edits-{edits}.log",
    conda:
        "../../envs/edit.yaml"
    resources:
        **asks("export_checkpoint"),
    params:
        runtime=settled(runtime, "model"),
        code=checkpoint_code("export_checkpoint.py"),
    message:
        "Save {wildcards.editor} after {wildcards.edits} edits as a full model"
    script:
        "../scripts/export_checkpoint.py"
