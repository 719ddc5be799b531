# Many small files → tidy tables → figures and one page.

from collateral.tableschemas import MEASURED


rule gather:
    input:
        **results.gathered(STUDY),
    output:
        expand(places.table("{table}"), table=MEASURED),
        expand(places.table("{table}", ".csv"), table=MEASURED),
    log:
        "logs/gather.log",
    conda:
        "../../envs/report.yaml"
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


rule report:
    input:
        tables=expand(places.table("{table}"), table=MEASURED),
        models=expand(places.manifest("{model}"), model=STUDY.names("models")),
        sequences=results.sequences(STUDY),
    output:
        page=report(
            places.PAGE,
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
