"""Which result files a study consists of, finished or not. Torch-free."""

from collateral.study import paths as places
from collateral.study.design import Cell, Study, reference_blocks


def at(study: Study, cell: Cell, edits: list[int], name: str) -> list[str]:
    """Return one file of some checkpoints of a chain."""
    place = places.single if study.is_single(cell.editor) else places.checkpoint
    return [place(cell, point, name) for point in edits]


def everywhere(study: Study, name: str) -> list[str]:
    """Return one file of every checkpoint."""
    chains = [cell for cell in study.cells if not study.is_single(cell.editor)]
    return [path for cell in chains for path in at(study, cell, study.checkpoints(cell), name)]


def singles(study: Study, name: str) -> list[str]:
    """Return one file of every part of the single edits."""
    alone = [cell for cell in study.cells if study.is_single(cell.editor)]
    return [path for cell in alone for path in at(study, cell, study.checkpoints(cell), name)]


def abilities(study: Study, ending: str) -> list[str]:
    """Return the results of every suite, of the unedited models and of every checkpoint that has it."""
    found = [
        places.unedited(model, places.abilities(suite, ending))
        for model in study.names("models")
        for suite in study.model_suites(model)
    ]
    for cell in study.cells:
        for edits in [] if study.is_single(cell.editor) else study.checkpoints(cell):
            own = study.suites(cell, edits)
            found += [places.checkpoint(cell, edits, places.abilities(suite, ending)) for suite in own]
    return found


def known(study: Study) -> list[str]:
    """Return the tables of known facts, of the data sets that are restricted to them."""
    asked = {
        (cell.model, cell.dataset)
        for cell in study.cells
        if study.settings["datasets"][cell.dataset]["known_only"]
    }
    return [places.known(model, dataset) for model, dataset in sorted(asked)]


def sequences(study: Study) -> list[str]:
    """Return the orders of edits."""
    return sorted({places.sequence(cell.dataset, cell.seed) for cell in study.cells})


def references(study: Study) -> list[str]:
    """Return the unedited models' probes."""
    last = {order: study.last_checkpoint(order) for order in dict.fromkeys(cell[:3] for cell in study.cells)}
    return [places.reference(*own, end) for own in last for _, end in reference_blocks(last[own])]


def gathered(study: Study) -> dict[str, list[str]]:
    """Return what the tidy tables are made of: kind of file → paths."""
    return {
        "abilities": abilities(study, ".json"),
        "samples": abilities(study, ".items.parquet"),
        "efficacy": everywhere(study, "efficacy.parquet"),
        "after_edit": [*everywhere(study, "after-edit.parquet"), *singles(study, "after-edit.parquet")],
        "reference": references(study),
        "edits": [*everywhere(study, "edits.parquet"), *singles(study, "edits.parquet")],
        "weights": everywhere(study, "weights.parquet"),
        "drift": everywhere(study, "drift.parquet"),
        "heatmaps": everywhere(study, "heatmap.parquet"),
        "singles": singles(study, "single-weights.parquet"),
        "known": known(study),
        "facts": [places.facts(dataset) for dataset in study.names("datasets")],
    }
