"""What a study consists of: its chains, their checkpoints, and what is measured at each. Torch-free."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from collateral.editing.registry import is_flagged, moment_layers, regularizer_kind

Settings = dict[str, Any]
PRODUCT = ("models", "datasets", "seeds", "editors")


class Cell(NamedTuple):
    """One chain of edits: what a study is a set of."""

    model: str
    dataset: str
    seed: int
    editor: str


@dataclass(frozen=True)
class Study:
    """Checked settings, and what the workflow asks of them.

    Attributes:
        settings: the whole config with every default filled in.
    """

    settings: Settings

    @functools.cached_property
    def parts(self) -> dict[str, Settings]:
        """Return the study's experiments by name: products, with the keys that they leave out from `study`."""
        common = {name: value for name, value in self.settings["study"].items() if name != "parts"}
        parts: dict[str, Settings] = self.settings["study"]["parts"]
        return {name: {**common, **part} for name, part in parts.items()} or {"": common}

    @functools.cached_property
    def grid(self) -> dict[Cell, dict[int, list[str]]]:
        """Return chain → number of edits → suites, numbers increasing; parts that name one chain share it."""
        cells: dict[Cell, dict[int, list[str]]] = {}
        for part in self.parts.values():
            for model in part["models"]:
                for dataset in part["datasets"]:
                    for seed in part["seeds"]:
                        for editor in part["editors"]:
                            points = cells.setdefault(Cell(model, dataset, seed, editor), {})
                            for edits in self.part_checkpoints(part, editor):
                                points.setdefault(edits, [])
                                points[edits] += [
                                    suite for suite in part["suites"] if suite not in points[edits]
                                ]
        return {cell: dict(sorted(points.items())) for cell, points in cells.items()}

    def part_checkpoints(self, part: Settings, editor: str) -> list[int]:
        """Return the checkpoints of an editor in one part: the part's, its last, or the editor's own."""
        points: str | list[int] = self.settings["editors"][editor]["checkpoints"]
        if isinstance(points, list):
            return points
        grid: list[int] = part["checkpoints"]
        return grid if points == "all" else grid[-1:]

    def names(self, kind: str) -> list[Any]:
        """Return what the parts name under `models`, `datasets`, `seeds`, `editors` or `suites`, each once."""
        return list(dict.fromkeys(name for part in self.parts.values() for name in part[kind]))

    @property
    def cells(self) -> list[Cell]:
        """Return all chains."""
        return list(self.grid)

    def is_single(self, editor: str) -> bool:
        """Return whether each operation of an editor starts from W_0, so that there is no chain."""
        editing: str = self.settings["editors"][editor]["editing"]
        return editing == "single"

    def checkpoints(self, cell: Cell) -> list[int]:
        """Return the checkpoints of one chain, increasing."""
        return list(self.grid[cell])

    def earlier(self, cell: Cell, edits: int) -> list[int]:
        """Return the chain's checkpoints before `edits`."""
        return [point for point in self.grid[cell] if point < edits]

    def suites(self, cell: Cell, edits: int) -> list[str]:
        """Return what is evaluated at a checkpoint."""
        return self.grid[cell][edits]

    def screened(self, cell: Cell, edits: int) -> list[int]:
        """Return the evaluated checkpoints before `edits` at which a chain is screened for a collapse.

        None unless the study skips the evaluation of collapsed chains.
        """
        skip: bool = self.settings["collapse"]["skip"]
        return [point for point in self.earlier(cell, edits) if self.grid[cell][point]] if skip else []

    def model_family(self, model: str) -> str:
        """Return a model's family, the `model_type` of its config.json."""
        return str(self.settings["models"][model]["family"])

    def gpu_count(self, model: str) -> int:
        """Return the number of GPUs that a job of a model needs: 0 on a CPU."""
        settings = self.settings["models"][model]
        return 0 if settings["device"] == "cpu" else int(settings["gpus"])

    def model_suites(self, model: str) -> list[str]:
        """Return what the unedited model is evaluated on: all that any of its checkpoints is."""
        suites = (
            suite for cell, grid in self.grid.items() if cell.model == model for suite in _flat(grid.values())
        )
        return list(dict.fromkeys(suites))

    def recipe(self, model: str, editor: str) -> Settings:
        """Return method, all its settings on this model, regulariser and batch size of a named editor."""
        declared = self.settings["editors"][editor]
        of_model = self.settings["models"][model]["methods"].get(declared["method"], {})
        settings = {**of_model, **declared["settings"]}
        return {
            "method": declared["method"],
            "settings": dict(sorted(settings.items())),
            "regularizer": declared["regularizer"],
            "batch_size": declared["batch_size"],
            "unstable": declared["unstable"],
        }

    def is_flagged(self, editor: str, flag: str) -> bool:
        """Return whether an editor's method declares a flag, see `editing.declaration`."""
        return is_flagged(self.settings["editors"][editor]["method"], flag)

    def replaces(self, editor: str) -> bool:
        """Return whether each delta of an editor is against W_0 and makes the earlier ones void."""
        settings = self.settings["editors"][editor]
        return (
            self.is_flagged(editor, "replaces")
            or regularizer_kind(settings["regularizer"]["name"]) == "accumulated"
        )

    def moment_layers(self, model: str, editor: str) -> list[int]:
        """Return the layers whose second moments an editor needs."""
        recipe = self.recipe(model, editor)
        return moment_layers(recipe["method"], recipe["settings"])

    def learner(self, model: str, editor: str) -> str | None:
        """Return the editor whose hypernetwork this one uses, if its method has one.

        It is the first by name with the same method and settings, so that editors that differ in their regularizer
        alone share one training, in whichever study's file they are.
        """
        if not self.is_flagged(editor, "hypernetwork"):
            return None
        training = self.training(model, editor)
        editors: Settings = self.settings["editors"]
        return next(name for name in sorted(editors) if self.training(model, name) == training)

    def training(self, model: str, editor: str) -> Settings:
        """Return what the training of an editor's hypernetwork depends on: method and settings."""
        recipe = self.recipe(model, editor)
        return {name: recipe[name] for name in ("method", "settings")}

    def last_edit(self, order: tuple[str, str, int], learner: str) -> int:
        """Return the largest checkpoint of an order's editors that use a hypernetwork."""
        users = [cell for cell in self.grid if cell[:3] == order]
        return max(max(self.grid[cell]) for cell in users if self.learner(cell.model, cell.editor) == learner)

    def last_checkpoint(self, order: tuple[str, str, int]) -> int:
        """Return the largest checkpoint of an order's editors."""
        return max(max(grid) for cell, grid in self.grid.items() if cell[:3] == order)

    def likeness(self, model: str, editor: str) -> str | None:
        """Return the editor whose step norms a placebo takes, if this one is a placebo."""
        like: str | None = self.recipe(model, editor)["settings"].get("like")
        return like


def _flat(lists: Iterable[list[str]]) -> Iterable[str]:
    return (entry for entries in lists for entry in entries)


def list_reference_blocks(edits: int) -> list[tuple[int, int]]:
    """Return the blocks (start, end) of facts, number `start + 1` to `end`, that together hold the first `edits`.

    The unedited model is probed in these blocks: 1, 2, 5, 10, 20, 50, … They are the same for every study, so that
    no checkpoint of one editor changes what another editor's jobs read.
    """
    ends: list[int] = []
    while not ends or ends[-1] < edits:
        ends.append((1, 2, 5)[len(ends) % 3] * 10 ** (len(ends) // 3))
    return list(zip([0, *ends], ends, strict=False))
