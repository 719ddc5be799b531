"""The public evaluation sets by name: licence, citation, where the files are, and which tasks read them. Torch-free.

The data are `catalogue.yaml` (benchmarks) and `tasks.yaml` (lm-eval's own tasks, as far as they are known by name).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from collateral.data.download.mirror import files_named
from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import sha256_file
from collateral.io.yaml import read_yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class RawFile:
    """One file as its publisher gives it; with neither `url` nor `hub` only a mirror can have it."""

    file: str  # its name; for a file of the hub its path in the repository
    sha256: str | None = None
    url: str | None = None
    hub: str | None = None  # data set repository, owner/name
    revision: str | None = None  # 40 hexadecimal digits

    @property
    def name(self) -> str:
        """Return the name under which the file is stored and looked for in a mirror."""
        return self.file.rpartition("/")[2]

    def request(self) -> dict[str, str]:
        """Return what a download needs to know: the keys that are set."""
        found = {"hub": self.hub, "revision": self.revision, "url": self.url, "file": self.file}
        return {key: value for key, value in {**found, "sha256": self.sha256}.items() if value is not None}


@dataclass(frozen=True)
class Source:
    """One way to a split's rows: raw files, and the form (a converter's name) that reads them together."""

    form: str
    files: tuple[RawFile, ...]

    @property
    def reachable(self) -> bool:
        """Return whether every file has an address."""
        return all(raw.url or raw.hub for raw in self.files)


@dataclass(frozen=True)
class Benchmark:
    """A public evaluation set."""

    name: str
    family: str  # the template that it is one of; else its name
    licence: str
    citation: str
    home: str
    fields: tuple[str, ...]  # of a prepared row
    stands_in_for: tuple[tuple[str, str | None], ...]  # (dataset_path, dataset_name) of task files
    splits: Mapping[str, tuple[Source, ...]]  # the first source is the preferred one


@dataclass(frozen=True)
class KnownTask:
    """What a report and a plan need to know of one of lm-eval's own tasks or groups."""

    benchmark: str | None  # None for a group
    members: tuple[str, ...]  # the tasks of a group; none for a task
    split: str  # that is scored
    examples: str | None  # the split of the few-shot examples
    shots: int  # few-shot examples where a suite says nothing
    ability: str
    primary: str
    also: tuple[str, ...]  # metrics that a report shows besides
    higher_is_better: bool
    chance: float | None


@cache
def catalogue() -> Mapping[str, Benchmark]:
    """Return name → benchmark, in the order of the file."""
    return {name: _benchmark(name, entry) for name, entry in _read("catalogue.yaml").items()}


@cache
def known_tasks() -> Mapping[str, KnownTask]:
    """Return name → what is known of lm-eval's own tasks and groups."""
    return {name: _known_task(entry) for name, entry in _read("tasks.yaml").items()}


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        CollateralError: the catalogue has no such name (the nearest is named).
    """
    found = catalogue().get(name)
    if found is None:
        raise unknown_name("benchmark", name, catalogue())
    return found


def standing_in(dataset_path: str | None, dataset_name: str | None) -> str | None:
    """Return the benchmark whose prepared files replace a task file's data set; None if there is none."""
    for name, found in catalogue().items():
        if (dataset_path, dataset_name) in found.stands_in_for:
            return name
    return None


def sources_of(name: str, split: str) -> tuple[Source, ...]:
    """Return the sources of a split, the preferred one first.

    Raises:
        CollateralError: the benchmark has no such split.
    """
    splits = benchmark(name).splits
    if split not in splits:
        raise unknown_name(f"split of the benchmark '{name}'", split, splits)
    return splits[split]


def chosen(name: str, split: str, mirror: Path | None = None) -> Source:
    """Return the source to use: the first that the mirror holds whole, else the first with addresses.

    A file of the mirror counts if its name and its sha256 are those of the catalogue. Where the catalogue states no
    sha256, the name has to do, but only if the file has no address either (its licence forbids passing it on).

    Raises:
        CollateralError: every source needs a mirror, and it lacks a file; the message names the files.
    """
    sources = sources_of(name, split)
    if mirror is not None:
        held = [source for source in sources if all(_in_mirror(raw, mirror) for raw in source.files)]
        if held:
            return held[0]
    for source in sources:
        if source.reachable:
            return source
    wanted = " and ".join(f"{raw.name} (sha256 {raw.sha256 or 'not stated'})" for raw in sources[0].files)
    where = f"the mirror {mirror} does not hold it" if mirror else "no address is known, and no mirror set"
    raise CollateralError(
        f"benchmark '{name}', split '{split}': {where}; set `mirror` to a folder with {wanted}"
    )


def foreseen(name: str, split: str, mirror: Path | None = None) -> tuple[Source, str]:
    """Return the source that a plan counts on, and why it cannot be had; nothing where it can.

    A plan needs no data: where `chosen` would stop, this is the preferred source.
    """
    try:
        return chosen(name, split, mirror), ""
    except CollateralError as error:
        return sources_of(name, split)[0], str(error)


def _in_mirror(raw: RawFile, mirror: Path) -> bool:
    found = files_named(mirror, raw.name)
    if raw.sha256 is None:
        return bool(found) and not (raw.url or raw.hub)
    return any(sha256_file(path) == raw.sha256 for path in found)


@cache
def _raw(name: str) -> dict[str, dict[str, Any]]:
    return dict(read_yaml(FOLDER / name, "benchmarks"))


def _read(name: str) -> dict[str, dict[str, Any]]:
    """Return the entries of a file; a template, which has `each`, is replaced by its entries.

    In a template `{each}` stands for a name of its list, `{slug}` for the same with hyphens.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, entry in _raw(name).items():
        if "each" not in entry or "members" in entry:
            found[key] = {"family": key, **entry}
            continue
        rest = {name: value for name, value in entry.items() if name != "each"}
        for one in _each(entry["each"]):
            found[_named(key, one)] = {"family": key, **_filled(rest, one)}
    return found


def _each(listed: list[str] | str) -> list[str]:
    """Return the names that a template stands for: a list, or the list of a template of the catalogue."""
    return listed if isinstance(listed, list) else list(_raw("catalogue.yaml")[listed]["each"])


def _named(text: str, one: str) -> str:
    return text.replace("{each}", one).replace("{slug}", one.replace("_", "-"))


def _filled(value: Any, one: str) -> Any:
    """Return an entry of a template with the name filled in; sources whose `sha256` lacks it are left out."""
    if isinstance(value, str):
        return _named(value, one)
    if isinstance(value, list):
        kept = [part for part in value if not _lacks(part, one)]
        return [_filled(part, one) for part in kept]
    if isinstance(value, dict):
        return {key: part[one] if _by_name(key, part) else _filled(part, one) for key, part in value.items()}
    return value


def _by_name(key: str, value: Any) -> bool:
    return key == "sha256" and isinstance(value, dict)


def _lacks(source: Any, one: str) -> bool:
    digests = source.get("sha256") if isinstance(source, dict) else None
    return isinstance(digests, dict) and one not in digests


def _known_task(entry: Mapping[str, Any]) -> KnownTask:
    members = entry.get("members")
    return KnownTask(
        benchmark=entry.get("benchmark"),
        members=tuple(_named(members, one) for one in _each(entry["each"])) if members else (),
        split=entry.get("split", ""),
        examples=entry.get("examples"),
        shots=int(entry.get("shots", 0)),
        ability=entry["ability"],
        primary=entry["primary"],
        also=tuple(entry.get("also", ())),
        higher_is_better=bool(entry.get("higher_is_better", True)),
        chance=entry.get("chance"),
    )


def _benchmark(name: str, entry: Mapping[str, Any]) -> Benchmark:
    return Benchmark(
        name=name,
        family=entry["family"],
        licence=entry["licence"],
        citation=entry["citation"],
        home=entry["home"],
        fields=tuple(entry["fields"]),
        stands_in_for=tuple((pair["path"], pair.get("name")) for pair in entry.get("stands_in_for", ())),
        splits={split: _sources(about["sources"]) for split, about in entry["splits"].items()},
    )


def _sources(entries: Sequence[Mapping[str, Any]]) -> tuple[Source, ...]:
    return tuple(
        Source(entry["form"], tuple(_raw_file(raw) for raw in entry.get("files", [entry])))
        for entry in entries
    )


def _raw_file(entry: Mapping[str, Any]) -> RawFile:
    file = entry.get("file") or str(entry["url"]).rpartition("/")[2]
    return RawFile(file, entry.get("sha256"), entry.get("url"), entry.get("hub"), entry.get("revision"))
