# Many small files → tidy tables → what they show → figures and one page.

from collateral.derived import READ
from collateral.tableschemas import INFERRED, MEASURED, TABLES


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


rule infer:
    input:
        expand(places.table("{table}"), table=[name for name in READ if name in MEASURED]),
    output:
        expand(places.table("{table}"), table=INFERRED),
        expand(places.table("{table}", ".csv"), table=INFERRED),
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
        tables=expand(places.table("{table}"), table=TABLES),
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
