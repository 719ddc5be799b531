"""Whether what lies in a study's folders is true: every file against itself, and against those that it builds on."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from collateral.analysis.tables.collect import collect_skipped, read_result_rows
from collateral.analysis.tables.schema import TABLES
from collateral.data.edit_order import SCHEMA as SEQUENCE
from collateral.data.facts import read_facts
from collateral.data.shared_resources import check_record, record
from collateral.deltas.file_format import read_increment, read_outline
from collateral.deltas.increment import Increment, check_chain
from collateral.editing.algorithms.hypernetwork import FORMAT as HYPERNETWORK
from collateral.editing.prepare.context_templates import read_templates
from collateral.editing.prepare.second_moments import check_moments
from collateral.editing.state import STATE
from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json, sha256_file
from collateral.io.parquet import read_table
from collateral.models.manifest import DTYPES, stored_tensor, verified_manifest
from collateral.models.tensor_file import read_tensors


@dataclass(frozen=True)
class Fault:
    """One file that is not what it should be.

    Attributes:
        said: the file, what is wrong and the remedy, in one line.
        delete: what to delete, so that the next run makes it again; None where deleting helps nothing.
    """

    said: str
    delete: Path | None


@dataclass(frozen=True)
class Verification:
    """What was looked at.

    Attributes:
        files: how many.
        faults: of them.
    """

    files: int
    faults: tuple[Fault, ...]


def verify(workdir: Path) -> Verification:
    """Return every fault of the files in a working directory's `resources` and `results`.

    Each file is read as the workflow reads it; then what belongs together is compared: a model's files with its
    manifest, a chain's deltas with the model, with their places and with each other, an edit sequence with its facts,
    the report with the tables that it was drawn from. Nothing is changed.
    """
    root = Path(workdir)
    faults: list[Fault] = []
    files = 0
    for path in _files(root):
        check = _check_of(path.relative_to(root).as_posix())
        if check is None:
            continue
        files += 1
        faults += _tried(path, lambda path=path, check=check: check(path))  # type: ignore[misc]
    damaged = {fault.delete for fault in faults}
    for chain in sorted({path.parent.parent for path in root.glob("results/edited/*/*/*/*/edits-*/*")}):
        faults += _chain_faults(root, chain, damaged)
    faults += _sequence_faults(root, damaged)
    faults += _report_faults(root)
    return Verification(files, tuple(faults))


def _files(root: Path) -> Iterator[Path]:
    for top in ("resources", "results"):
        for folder, inner, names in os.walk(root / top, followlinks=True):  # resources may be a link
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _tried(path: Path, check: Callable[[], object]) -> list[Fault]:
    try:
        check()
    except CollateralError as error:
        return [Fault(str(error), path)]
    return []


def _manifest(path: Path) -> None:
    verified_manifest(path.parent)


def _download(path: Path) -> None:
    """A download's folder is named after the sha256 that its source states; where it states none, one is recorded."""
    if record(path).is_file():
        check_record(path)
    elif not sha256_file(path).startswith(path.parent.name):
        raise CollateralError(
            f"{path}: its sha256 does not begin with the name of its folder; delete it and run the workflow again"
        )


def _abilities(path: Path) -> None:
    if not collect_skipped([path]).is_empty():
        return
    read_result_rows(path, {})


def _table(kind: str, name: str) -> Callable[[Path], object]:
    """Return what reads a table: with the columns that only the tidy table of all of them adds left out."""

    def read(path: Path) -> object:
        return read_table(path, kind, [one for one in TABLES[name].schema if one not in _ADDED])

    return read


def _json(kind: str, key: str) -> Callable[[Path], object]:
    """Return what reads a sealed JSON file that must have a key."""

    def read(path: Path) -> object:
        if key not in read_sealed_json(path, kind):
            raise CollateralError(
                f"{path}: not {kind} (no key '{key}'); delete it and run the workflow again"
            )
        return None

    return read


def _tensors(kind: str, form: str) -> Callable[[Path], object]:
    """Return what reads a file of tensors of one format."""

    def read(path: Path) -> object:
        found = read_tensors(path, kind)[1].get("format")
        if found != form:
            raise CollateralError(
                f"{path}: not {kind} (its format is {found!r}, not {form}); delete it and run the workflow again"
            )
        return None

    return read


_ADDED = {"model", "dataset", "seed", "editor", "edits", "suite", "ability"}
_CHECKS: tuple[tuple[re.Pattern[str], Callable[[Path], object]], ...] = tuple(
    (re.compile(pattern), check)
    for pattern, check in (
        (r"resources/models/[^/]+/manifest\.json", _manifest),
        (r"resources/datasets/.+\.parquet", read_facts),
        (r"resources/downloads/[0-9a-f]{16}/(?!.*\.(source\.json|part.*)$).+", _download),
        (r"resources/(benchmarks|texts)/(?!.*\.source\.json$).+", check_record),
        (r"resources/.+\.source\.json", _json("a record", "sha256")),
        (r"results/sequences/.+\.parquet", lambda path: read_table(path, "an edit sequence", SEQUENCE)),
        (r"results/prepared/[^/]+/contexts\.json", read_templates),
        (r"results/prepared/[^/]+/moments-[^/]+\.safetensors", check_moments),
        (r"results/prepared/.+\.safetensors", _tensors("a hypernetwork", HYPERNETWORK)),
        (
            r"results/prepared/[^/]+/known-.+\.parquet",
            lambda path: read_table(path, "known facts", ("fact_id", "known")),
        ),
        (r"results/.+/abilities/[^/]+\.json", _abilities),
        (r"results/.+/abilities/[^/]+\.items\.parquet", _table("scored items", "ability-items")),
        (r"results/.+/(efficacy|after-edit|reference)\.parquet", _table("probes", "efficacy")),
        (r"results/edited/.+/edits\.parquet", _table("records of edits", "edits")),
        (r"results/edited/.+/weights\.parquet", _table("weight statistics", "weights")),
        (r"results/edited/.+/heatmap\.parquet", _table("a heat map", "heatmaps")),
        (r"results/edited/.+/drift\.parquet", _table("drift", "drift")),
        (r"results/edited/.+/single-weights\.parquet", _table("weight statistics", "single-weights")),
        (r"results/edited/.+/collapse\.json", _json("a verdict", "collapsed_at")),
        (r"results/edited/.+/state\.safetensors", _tensors("an editor's state", STATE)),
        (r"results/edited/.+/delta\.parquet", read_increment),
        (
            rf"results/tables/({'|'.join(TABLES)})\.parquet",
            lambda path: read_table(path, "a result table", TABLES[path.stem].schema),
        ),
        (r"results/report/run\.json", _json("the report's record", "hashes")),
    )
)


def _check_of(name: str) -> Callable[[Path], object] | None:
    return next((check for pattern, check in _CHECKS if pattern.fullmatch(name)), None)


def _chain_faults(root: Path, chain: Path, damaged: set[Path | None]) -> Iterator[Fault]:
    """Yield what is wrong between the files of one chain; damaged files were told of already."""
    folders = sorted((path for path in chain.glob("edits-*") if path.is_dir()), key=_edits)
    links: list[Increment] = []
    whole = True
    for folder in folders:
        edits = _edits(folder)
        path = folder / "delta.parquet"
        if not path.is_file():
            whole = False
            later = [one.name for one in folders if _edits(one) > edits and (one / "delta.parquet").is_file()]
            if later:
                yield Fault(f"{path}: missing, though {later[0]} builds on it; run the workflow again", None)
            continue
        if path in damaged:
            whole = False
            continue
        one = read_outline(path)
        if int(one.metadata["to_edits"]) != edits:
            whole = False
            yield Fault(
                f"{path}: the delta of {one.metadata['to_edits']} edits, in the place of that of {edits}; delete it "
                "and run the workflow again",
                path,
            )
            continue
        links.append(one)
        state = folder / "state.safetensors"
        if state.is_file() and state not in damaged:
            found = read_tensors(state, "an editor's state")[1].get("edits")
            if found != edits:
                yield Fault(
                    f"{state}: the state after {found} edits, in the place of that after {edits}; delete it and run "
                    "the workflow again",
                    state,
                )
    model = root / "resources/models" / chain.relative_to(root).parts[2]
    if not links or model / "manifest.json" in damaged or not (model / "manifest.json").is_file():
        return
    manifest = read_sealed_json(model / "manifest.json", "a model's manifest")  # its files were checked
    files, identity = manifest["files"], manifest["sha256"]
    foreign = [one for one in links if one.metadata["base_sha256"] != identity]
    for one in foreign:
        yield Fault(
            f"{one.path}: made from another base model (sha256 {one.metadata['base_sha256'][:12]}…, here "
            f"{identity[:12]}…); delete it and run the workflow again",
            one.path,
        )
    if not foreign and whole:
        yield from _tried(links[0].path, lambda: check_chain(_base(model, files, links), links))


def _edits(folder: Path) -> int:
    return int(folder.name.removeprefix("edits-"))


def _base(model: Path, files: dict[str, str], links: Sequence[Increment]) -> dict[str, Tensor]:
    """Return W_0 of the parameters that a chain changes, in the dtype that it was run in."""
    dtypes: dict[str, Any] = {
        name: DTYPES[one.metadata["dtype"]] for one in links for name in one.metadata["parameters"]
    }
    return {name: stored_tensor(model, files, name).to(dtype) for name, dtype in dtypes.items()}


def _sequence_faults(root: Path, damaged: set[Path | None]) -> Iterator[Fault]:
    for path in sorted(root.glob("results/sequences/*/*.parquet")):
        facts = root / f"resources/datasets/{path.parent.name}.parquet"
        if path in damaged or facts in damaged or not facts.is_file():
            continue
        known = {fact.fact_id for fact in read_facts(facts)}
        strange = [one for one in read_table(path, "an edit sequence")["fact_id"] if one not in known]
        if strange:
            yield Fault(
                f"{path}: names the fact {strange[0]!r}, which {facts.name} lacks; delete it and run the workflow "
                "again",
                path,
            )


def _report_faults(root: Path) -> Iterator[Fault]:
    """Yield the report, where a table is no longer the one that it was drawn from."""
    record = root / "results/report/run.json"
    try:
        hashes: dict[str, str] = read_sealed_json(record, "the report's record")["hashes"]
    except CollateralError:
        return  # missing, or told of already
    for name, expected in sorted(hashes.items()):
        if (root / name).is_file() and sha256_file(root / name) != expected:
            yield Fault(
                f"{record}: the report was drawn from another {name}; delete it and run the workflow again",
                record,
            )
