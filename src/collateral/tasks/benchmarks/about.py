"""The table of benchmarks for a reader: licence, citation, where the data come from, what a mirror needs."""

from itertools import groupby

from collateral.tasks.benchmarks.catalogue import Benchmark, RawFile, catalogue

_HEADER = (
    "| benchmark | licence | citation | fetched from | files for a mirror (sha256) |\n|---|---|---|---|---|\n"
)


def about_table() -> str:
    """Return a Markdown table with a row for each benchmark; those of one template share a row."""
    rows = [_row([*group]) for _, group in groupby(catalogue().values(), key=lambda found: found.family)]
    return _HEADER + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(group: list[Benchmark]) -> list[str]:
    first = group[0]
    name = f"`{first.name}`" if len(group) == 1 else f"`{first.family}` ({len(group)})"
    files = [raw for found in group for raw in _files(found)]
    addresses = dict.fromkeys(_address(raw) for raw in files if raw.hub or raw.url)
    mirrored = {f"`{raw.name}` ({raw.sha256 or 'any'})": None for raw in files if not raw.hub}
    return [
        name,
        first.licence,
        f"[{first.citation}]({first.home})",
        "<br>".join(addresses) or "a mirror only",
        "<br>".join(mirrored) or "the files of the hub",
    ]


def _files(found: Benchmark) -> list[RawFile]:
    return [raw for sources in found.splits.values() for source in sources for raw in source.files]


def _address(raw: RawFile) -> str:
    if raw.hub:
        return f"[{raw.hub}](https://huggingface.co/datasets/{raw.hub}/tree/{raw.revision})"
    return f"[{raw.name}]({raw.url})"
