# Many small files → tidy tables → figures and one page.

TABLES = (
    "abilities",
    "ability-items",
    "efficacy",
    "edits",
    "weights",
    "heatmaps",
    "single-weights",
    "objectives",
    "known",
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
        suites={name: STUDY.settings["suites"][name]["tasks"] for name in STUDY.names("suites")},
        folders={name: task_folders(name) for name in STUDY.names("suites")},
        code=code("gather.py"),
    message:
        "Gather all results into tidy tables"
    script:
        "../scripts/gather.py"


rule report:
    input:
        tables=expand("results/tables/{table}.parquet", table=TABLES),
        models=expand("resources/models/{model}/manifest.json", model=STUDY.names("models")),
        sequences=all_sequences(),
    output:
        page=report(
            "results/report/index.html",
            caption="../report/page.rst",
            category="Report",
        ),
        pages=expand("results/report/{page}.html", page=("abilities", "edits", "weights", "cost")),
        run="results/report/run.json",
        figures=report(
            directory("results/figures"),
            patterns=["{family}/{figure}.svg"],
            caption="../report/figure.rst",
            category="{family}",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/report.log",
    conda:
        "../../envs/report.yaml"
    params:
        settings=STUDY.settings,
        code=code("report.py"),
        look=[sha256_file(PACKAGE / name) for name in ("page.css", "page.js")],
    message:
        "Draw the report: {output.page}"
    script:
        "../scripts/report.py"
