# Many small files → tidy tables → figures and one page.

TABLES = (
    "abilities",
    "ability-items",
    "efficacy",
    "edits",
    "weights",
    "heatmaps",
    "known",
)


rule gather:
    input:
        abilities=[
            *expand(
                unedited("abilities/{suite}.json"),
                model=STUDY.run["models"],
                suite=STUDY.run["suites"],
            ),
            *all_suites(everywhere("abilities/{suite}.json")),
        ],
        samples=[
            *expand(
                unedited("abilities/{suite}.items.parquet"),
                model=STUDY.run["models"],
                suite=STUDY.run["suites"],
            ),
            *all_suites(everywhere("abilities/{suite}.items.parquet")),
        ],
        efficacy=everywhere("efficacy.parquet"),
        after_edit=everywhere("after-edit.parquet"),
        reference=all_references(),
        edits=everywhere("edits.parquet"),
        weights=everywhere("weights.parquet"),
        heatmaps=everywhere("heatmap.parquet"),
        known=all_known(),
    output:
        expand("results/tables/{table}.parquet", table=TABLES),
    log:
        "logs/gather.log",
    conda:
        "../../envs/report.yaml"
    params:
        suites={name: STUDY.settings["suites"][name]["tasks"] for name in STUDY.run["suites"]},
        folders={name: task_folders(name) for name in STUDY.run["suites"]},
        code=code("gather.py"),
    message:
        "Gather all results into tidy tables"
    script:
        "../scripts/gather.py"


rule report:
    input:
        tables=expand("results/tables/{table}.parquet", table=TABLES),
        models=expand("resources/models/{model}/manifest.json", model=STUDY.run["models"]),
        sequences=expand(
            "results/sequences/{dataset}/seed-{seed}.parquet",
            dataset=STUDY.run["datasets"],
            seed=STUDY.run["seeds"],
        ),
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
