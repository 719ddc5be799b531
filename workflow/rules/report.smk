# Many small files → tidy tables → figures and one page.

TABLES = (
    "abilities",
    "ability-items",
    "collapses",
    "efficacy",
    "edits",
    "weights",
    "heatmaps",
    "single-weights",
    "objectives",
    "known",
)

# Names of tables that other tables are inferred from; those that this study has are among TABLES.
MEASURED = (
    "abilities",
    "ability-items",
    "collapses",
    "drift",
    "editors",
    "efficacy",
    "objectives",
    "weights",
)
INFERRED = (
    "comparisons",
    "normalised",
    "horizons",
    "retention",
    "tradeoffs",
    "areas",
    "predictors",
)


rule gather:
    input:
        abilities=all_abilities(".json"),
        samples=all_abilities(".items.parquet"),
        efficacy=everywhere("efficacy.parquet"),
        after_edit=[*everywhere("after-edit.parquet"), *singles("after-edit.parquet")],
        reference=all_references(),
        edits=[*everywhere("edits.parquet"), *singles("edits.parquet")],
        weights=everywhere("weights.parquet"),
        heatmaps=everywhere("heatmap.parquet"),
        singles=singles("single-weights.parquet"),
        known=all_known(),
        facts=expand("resources/datasets/{dataset}.parquet", dataset=STUDY.names("datasets")),
    output:
        expand("results/tables/{table}.parquet", table=TABLES),
    log:
        "logs/gather.log",
    conda:
        "../../envs/report.yaml"
    params:
        suites=asked_tasks(STUDY.names("suites")),
        folders={name: task_folders(name) for name in STUDY.names("suites")},
        collapse=STUDY.settings["collapse"],
        code=code("gather.py"),
    message:
        "Gather all results into tidy tables"
    script:
        "../scripts/gather.py"


rule infer:
    input:
        expand("results/tables/{table}.parquet", table=[name for name in TABLES if name in MEASURED]),
    output:
        expand("results/tables/{table}.parquet", table=INFERRED),
    log:
        "logs/infer.log",
    conda:
        "../../envs/report.yaml"
    params:
        terms=STUDY.settings["inference"],
        code=code("infer.py"),
    message:
        "Infer what the tables show"
    script:
        "../scripts/infer.py"


rule report:
    input:
        tables=expand("results/tables/{table}.parquet", table=[*TABLES, *INFERRED]),
        models=expand("resources/models/{model}/manifest.json", model=STUDY.names("models")),
        sequences=all_sequences(),
    output:
        page=report(
            "results/report/index.html",
            caption="../report/page.rst",
            category="Report",
        ),
        figures=report(
            directory("results/report/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/report.log",
    conda:
        "../../envs/report.yaml"
    params:
        settings=STUDY.settings,
        code=code("report.py"),
    message:
        "Draw the report: {output.page}"
    script:
        "../scripts/report.py"
