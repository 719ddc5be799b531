"""The order in which facts are edited: a full seeded permutation, the same for every model and editor."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from collateral.data.facts import Fact
from collateral.errors import CollateralError
from collateral.io.parquet import read_table, write_table

log = logging.getLogger(__name__)

SCHEMA = {"position": pl.Int32, "fact_id": pl.String, "conflicts_with": pl.String}


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that is a function of the parts alone, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def permutation(facts: Sequence[Fact], seed: int, conflicts: Literal["drop", "keep"]) -> pl.DataFrame:
    """Return position (1-based), fact_id and conflicts_with for all facts, in seeded order; with cases, case_id too.

    Facts are ordered by sha256(seed, fact_id): the order of two facts never depends on which others there
    are, so that a longer study, or a larger data set, does not reorder a shorter one. A case takes one place, by
    sha256(seed, case_id), and its facts follow one another in the order of `facts`.

    Args:
        facts: the data set.
        seed: of the study.
        conflicts: what happens to a later fact with the same subject and relation as an earlier one: `drop`
            leaves it out, `keep` keeps it and names the earlier one. A case of which one fact conflicts is left
            out whole, also where the two facts are the same edit: without it, what the case asks could not be
            laid to the case's own edits. Facts of one case never conflict with each other.
    """
    units: dict[str, list[Fact]] = {}
    for fact in facts:
        units.setdefault(fact.unit, []).append(fact)
    ordered = sorted(units, key=lambda unit: (derive_seed("sequence", seed, unit), unit))
    first: dict[tuple[str, str], Fact] = {}
    rows: list[tuple[str, str | None, str]] = []
    dropped: list[list[Fact]] = []
    for unit in ordered:
        earlier = [first.get(_asked(fact)) for fact in units[unit]]
        if conflicts == "drop" and any(earlier):
            dropped.append(units[unit])
            continue
        for fact, clash in zip(units[unit], earlier, strict=True):
            first.setdefault(_asked(fact), fact)
            rows.append((fact.fact_id, clash.fact_id if clash else None, fact.case_id))
    _log_conflicts(dropped, sum(clash is not None for _, clash, _ in rows))
    table = pl.DataFrame(
        [(number, *row) for number, row in enumerate(rows, start=1)],
        schema={**SCHEMA, "case_id": pl.String},
        orient="row",
    )
    return table if any(fact.case_id for fact in facts) else table.drop("case_id")


def _asked(fact: Fact) -> tuple[str, str]:
    # ASSUME: where the source names no relation, two facts about one subject are taken to conflict
    return fact.subject.casefold(), fact.relation


def _log_conflicts(dropped: Sequence[Sequence[Fact]], marked: int) -> None:
    said = "%d facts repeat an earlier fact's subject and relation: %s"
    alone = sum(not unit[0].case_id for unit in dropped)
    if alone:
        log.warning(said, alone, "left out of the sequence")
    if len(dropped) > alone:
        number = sum(len(unit) for unit in dropped) - alone
        log.warning(
            "%d cases (%d facts) hold a fact that repeats an earlier one's subject and relation: "
            "left out of the sequence",
            len(dropped) - alone,
            number,
        )
    if marked:
        log.warning(said, marked, "kept and marked")


def write_sequence(sequence: pl.DataFrame, path: Path) -> None:
    """Write a sequence to parquet."""
    write_table(sequence, path)


def chosen_facts(
    facts: Mapping[str, Fact], sequence: Path, known: Path | None, count: int
) -> list[tuple[int, Fact]]:
    """Return the first `count` (number, fact) of a sequence, numbered from 1.

    Args:
        facts: the data set by fact_id.
        sequence: file of the permutation.
        known: file of what the unedited model knows; None takes every fact.
        count: number of edits.

    Raises:
        CollateralError: there are fewer facts, or the sequence belongs to another data set.
    """
    wanted = _order(sequence, known)
    if count > len(wanted):
        raise CollateralError(
            f"{sequence}: {count} edits are asked for, but only {len(wanted)} facts are {_which(known)}; lower the "
            "last checkpoint, or set known_only: false, or take a larger data set"
        )
    chosen = _looked_up(facts, wanted[:count], sequence)
    return list(enumerate(chosen, start=1))


def facts_between(
    facts: Mapping[str, Fact], sequence: Path, known: Path | None, start: int, end: int
) -> list[tuple[int, Fact]]:
    """Return the (number, fact) of a sequence from number `start + 1` to `end`, as far as there are any.

    Args:
        facts: the data set by fact_id.
        sequence: file of the permutation.
        known: file of what the unedited model knows; None takes every fact.
        start: number of the last fact before them.
        end: number of the last of them.

    Raises:
        CollateralError: the sequence belongs to another data set.
    """
    chosen = _looked_up(facts, _order(sequence, known)[start:end], sequence)
    return list(enumerate(chosen, start=start + 1))


def last_facts(
    facts: Mapping[str, Fact], sequence: Path, known: Path | None, count: int, edits: int
) -> list[Fact]:
    """Return the last `count` facts of a sequence, to train on: none is among the first `edits`.

    Args:
        facts: the data set by fact_id.
        sequence: file of the permutation.
        known: file of what the unedited model knows; None takes every fact.
        count: number of facts to train on.
        edits: number of facts that will be edited.

    Raises:
        CollateralError: there are fewer than `count + edits` facts, or the sequence belongs to another data set.
    """
    wanted = _order(sequence, known)
    if count + edits > len(wanted):
        raise CollateralError(
            f"{sequence}: training_facts is {count} and the last checkpoint {edits}, but only {len(wanted)} facts "
            f"are {_which(known)}, and a fact that was trained on is not edited; lower training_facts to "
            f"{max(len(wanted) - edits, 0)} or the last checkpoint to {max(len(wanted) - count, 0)}, or take a "
            "larger data set"
        )
    return _looked_up(facts, wanted[len(wanted) - count :], sequence)


def sampled_facts(facts: Mapping[str, Fact], seed: int, count: int, path: Path) -> list[Fact]:
    """Return `count` facts in seeded order, to train on, from a file of their own.

    Args:
        facts: the facts to train on by fact_id.
        seed: of the study.
        count: number of facts to train on.
        path: of the file, for the message.

    Raises:
        CollateralError: there are fewer facts.
    """
    wanted: list[str] = permutation(list(facts.values()), seed, "keep")["fact_id"].to_list()
    if count > len(wanted):
        raise CollateralError(
            f"{path}: training_facts is {count}, but the file has {len(wanted)} facts; lower training_facts"
        )
    return [facts[fact_id] for fact_id in wanted[:count]]


def _order(sequence: Path, known: Path | None) -> list[str]:
    """Return the fact_ids in order; of what the model knows, cases that it knows whole."""
    order = read_table(sequence, "an edit sequence", tuple(SCHEMA))
    wanted: list[str] = order["fact_id"].to_list()
    cases: list[str] = order["case_id"].to_list() if "case_id" in order.columns else [""] * len(order)
    if known is None:
        return wanted
    table = read_table(known, "a table of known facts", ("fact_id", "known"))
    right = set(table.filter("known")["fact_id"].to_list())
    broken = {case for fact_id, case in zip(wanted, cases, strict=True) if case and fact_id not in right}
    return [
        fact_id
        for fact_id, case in zip(wanted, cases, strict=True)
        if fact_id in right and case not in broken
    ]


def _which(known: Path | None) -> str:
    return "known to the unedited model" if known else "in the sequence"


def _looked_up(facts: Mapping[str, Fact], wanted: Sequence[str], sequence: Path) -> list[Fact]:
    absent = [fact_id for fact_id in wanted if fact_id not in facts]
    if absent:
        raise CollateralError(
            f"{sequence}: names the fact '{absent[0]}', which the data set lacks; delete it"
        )
    return [facts[fact_id] for fact_id in wanted]
