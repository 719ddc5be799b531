# Many small files → tidy tables → what they show → figures and one page.

from collateral.analysis.tables.schema import INFERRED, MEASURED, READ, TABLES

FIGURE_FILES = sorted((PACKAGE / "report/figures").glob("[a-z]*.py"))


rule gather:
    input:
        **results.list_results(STUDY),
    output:
        expand(paths.table("{table}"), table=MEASURED),
        expand(paths.table("{table}", ".csv"), table=MEASURED),
    log:
        "logs/gather.log",
    conda:
        "../../envs/report.yaml"
    resources:
        **asks("gather"),
    params:
        suites=asked_tasks(STUDY.names("suites")),
        folders={name: task_folders(name) for name in STUDY.names("suites")},
        editors={name: STUDY.settings["editors"][name] for name in STUDY.names("editors")},
        collapse=STUDY.settings["collapse"],
        code=code("gather.py"),
    message:
        "Gather all results into tidy tables"
    script:
        "../scripts/gather.py"


rule infer:
    input:
        expand(paths.table("{table}"), table=READ),
    output:
        expand(paths.table("{table}"), table=INFERRED),
        expand(paths.table("{table}", ".csv"), table=INFERRED),
    log:
        "logs/infer.log",
    conda:
        "../../envs/report.yaml"
    resources:
        **asks("infer"),
    params:
        terms=STUDY.settings["inference"],
        code=code("infer.py"),
    message:
        "Infer what the tables show"
    script:
        "../scripts/infer.py"


rule report:
    input:
        tables=expand(paths.table("{table}"), table=TABLES),
        models=expand(paths.manifest("{model}"), model=STUDY.names("models")),
        sequences=results.list_sequences(STUDY),
    output:
        page=report(
            paths.PAGE,
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
    resources:
        **asks("report"),
    params:
        settings=STUDY.settings,
        code=code("report.py", *(f"collateral.report.figures.{path.stem}" for path in FIGURE_FILES)),
        look=[sha256_file(PACKAGE / name) for name in ("report/pages/page.css", "report/pages/page.js")],
    message:
        "Draw the report: {output.page}"
    script:
        "../scripts/report.py"
