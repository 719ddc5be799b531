# What comes after all rules: what happens when jobs are about to run.

import atexit

from collateral.runtime.explain_rerun import LEDGER, extend_ledger
from collateral.runtime.snakemake_internals import bound_resource
from collateral.runtime.workflow_run import guard_workflow

if workflow.is_main_process:
    SOURCES.save()  # for the processes of its jobs; and at the end, with what single jobs asked for
    atexit.register(SOURCES.save)
    atexit.register(extend_ledger, CODES, LEDGER)
    guard_workflow(workflow, logger, gpus=max(map(STUDY.gpu_count, STUDY.names("models"))) or 1)
else:
    bound_resource(workflow, "alone", 1)
