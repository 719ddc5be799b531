"""Which result files a study consists of, finished or not. Torch-free."""

from collateral.study import paths
from collateral.study.design import Cell, Study, list_reference_blocks


def list_checkpoint_files(study: Study, cell: Cell, points: list[int], name: str) -> list[str]:
    """Return one file of some checkpoints of a chain."""
    path = paths.single if study.is_single(cell.editor) else paths.checkpoint
    return [path(cell, edits, name) for edits in points]


def list_chain_files(study: Study, name: str) -> list[str]:
    """Return one file of every checkpoint of all chains."""
    return _list_files(study, name, single=False)


def list_single_edit_files(study: Study, name: str) -> list[str]:
    """Return one file of every part of the single edits."""
    return _list_files(study, name, single=True)


def _list_files(study: Study, name: str, single: bool) -> list[str]:
    cells = [cell for cell in study.cells if study.is_single(cell.editor) == single]
    return [
        path for cell in cells for path in list_checkpoint_files(study, cell, study.checkpoints(cell), name)
    ]


def list_ability_files(study: Study, ending: str) -> list[str]:
    """Return the results of every suite, of the unedited models and of every checkpoint that has it."""
    files = [
        paths.unedited(model, paths.abilities(suite, ending))
        for model in study.names("models")
        for suite in study.model_suites(model)
    ]
    for cell in study.cells:
        for edits in [] if study.is_single(cell.editor) else study.checkpoints(cell):
            suites = study.suites(cell, edits)
            files += [paths.checkpoint(cell, edits, paths.abilities(suite, ending)) for suite in suites]
    return files


def list_known_fact_files(study: Study) -> list[str]:
    """Return the tables of known facts, of the data sets that are restricted to them."""
    pairs = {
        (cell.model, cell.dataset)
        for cell in study.cells
        if study.settings["datasets"][cell.dataset]["known_only"]
    }
    return [paths.known(model, dataset) for model, dataset in sorted(pairs)]


def list_sequences(study: Study) -> list[str]:
    """Return the orders of edits."""
    return sorted({paths.sequence(cell.dataset, cell.seed) for cell in study.cells})


def list_references(study: Study) -> list[str]:
    """Return the unedited models' probes."""
    orders = dict.fromkeys(cell[:3] for cell in study.cells)
    return [
        paths.reference(*order, end)
        for order in orders
        for _, end in list_reference_blocks(study.last_checkpoint(order))
    ]


def list_results(study: Study) -> dict[str, list[str]]:
    """Return what the tidy tables are made of: kind of file → paths."""
    after_edit, edits = "after-edit.parquet", "edits.parquet"
    return {
        "abilities": list_ability_files(study, ".json"),
        "samples": list_ability_files(study, ".items.parquet"),
        "efficacy": list_chain_files(study, "efficacy.parquet"),
        "after_edit": [*list_chain_files(study, after_edit), *list_single_edit_files(study, after_edit)],
        "reference": list_references(study),
        "edits": [*list_chain_files(study, edits), *list_single_edit_files(study, edits)],
        "weights": list_chain_files(study, "weights.parquet"),
        "drift": list_chain_files(study, "drift.parquet"),
        "heatmaps": list_chain_files(study, "heatmap.parquet"),
        "singles": list_single_edit_files(study, "single-weights.parquet"),
        "known": list_known_fact_files(study),
        "facts": [paths.facts(dataset) for dataset in study.names("datasets")],
    }
