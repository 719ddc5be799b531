"""Random input for whatever reads files of others: it is refused in one line, or read; nothing else happens.

Each test takes a few seconds. With COLLATERAL_FUZZ_SECONDS=600 each goes on for that long, with a new seed a round.
"""

import copy
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import test_factors
import test_pages
import test_sources
import test_sources_ckd
import test_sources_commonsense
import test_sources_elken
import test_sources_knowedit
import test_sources_mquake
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import inferred_frames
import report_frames
from collateral.data.facts import Fact
from collateral.data.registry import load_facts
from collateral.deltas.file_format import read_increment, read_outline, read_parts, write_increment
from collateral.deltas.increment import rebuild
from collateral.errors import CollateralError
from collateral.io import checksum as sealed
from collateral.io.parquet import write_sealed
from collateral.report.pages import pages
from collateral.study.config import load_study

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("COLLATERAL_FUZZ_SECONDS", "0"))
pytestmark = pytest.mark.timeout(300 + 2 * SECONDS)
NAMES = ("model.a.weight", "model.b.weight")
MARK = sealed.KEY.encode() + b"\x18@"  # what comes before the seal in a footer


def fuzz(cases: st.SearchStrategy, check: Callable[[Any], None], examples: int) -> None:
    """Check so many cases, the same at every call; or new ones until the time is over."""
    begun = time.monotonic()
    round_, tried = 0, 0

    def counted(case: Any) -> None:
        nonlocal tried
        tried += 1
        check(case)

    while round_ == 0 or time.monotonic() - begun < SECONDS:
        limits = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        )
        seed(round_)(limits(given(cases)(counted)))()
        round_ += 1
    if SECONDS:
        print(f"{tried} cases in {round_} rounds, {time.monotonic() - begun:.0f} s")  # noqa: T201


def refused_in_one_line(act: Callable[[], Any]) -> Any:
    """Return what a call gives; None where it refuses, which takes one line."""
    try:
        return act()
    except CollateralError as error:
        said = str(error)
    assert len(said.splitlines()) == 1, said
    return None


# random values, and random edits of a tree --------------------------------------------------------------------------

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "{}", "{} {}", "a{}b", "\n", "line\u2028end", "all", "last", "float32", "additive", "1e-3"]
    ),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def tree_edits(values: st.SearchStrategy) -> st.SearchStrategy:
    """Edits of a tree: of which place (a share of all), what happens there, another place, a value."""
    share = st.floats(0, 1, exclude_max=True)
    kinds = st.sampled_from(["put", "put", "delete", "add", "move", "twice"])
    return st.lists(st.tuples(share, kinds, share, values), min_size=1, max_size=3)


TREE_EDITS = tree_edits(VALUES)


def places_of(tree: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Return (holder, key) of everything in a tree."""
    found = [] if found is None else found
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in list(pairs):
        found.append((tree, key))
        places_of(inner, found)
    return found


def edited(tree: Any, edits: list[tuple[float, str, float, Any]]) -> Any:
    made = copy.deepcopy(tree)
    for share, kind, other, value in edits:
        places = places_of(made)
        if not places:
            return value
        holder, key = places[int(share * len(places))]
        donor, place = places[int(other * len(places))]
        if kind == "delete":
            del holder[key]
        elif kind == "move":
            holder[key] = copy.deepcopy(donor[place])
        elif kind == "twice" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == "add" and isinstance(holder, dict):
            holder[value if isinstance(value, str) else str(place)] = value
        else:
            holder[key] = value
    return made


# (a) deltas ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["elements", "factors"])
def delta(request, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A delta of two parameters, with an exception or in factors, and the weights before and after it."""
    if request.param == "factors":
        path, before = tmp_path_factory.mktemp("delta") / "delta.parquet", test_factors.weights()
        after, told = test_factors.link(1, before, rank=2, keep=0.4, count=1)
        about = {"base_sha256": "a" * 64, "mode": "additive", "from_edits": 0, "to_edits": 1, "editor": {}}
        write_increment(path, before, after, about, told)
        assert read_outline(path).metadata["encoding"] == "factors"
        return path, before, after
    generator = torch.Generator().manual_seed(0)
    before = {name: torch.randn(6, 5, generator=generator) for name in NAMES}
    after = {name: weight + torch.randn(6, 5, generator=generator) for name, weight in before.items()}
    after[NAMES[0]][2, 3] = 1e-30
    path = tmp_path_factory.mktemp("delta") / "delta.parquet"
    about = {"base_sha256": "a" * 64, "mode": "additive", "from_edits": 0, "to_edits": 1, "editor": {}}
    write_increment(path, before, after, about)
    return path, before, after


def changes(size: int, first: int = 0) -> st.SearchStrategy:
    """What may be done to a file's bytes: put in place, inserted, cut out, swapped, cut off."""
    place, some = st.integers(first, size - 1), st.binary(min_size=1, max_size=8)
    return st.lists(
        st.one_of(
            st.tuples(st.just("put"), place, some),
            st.tuples(st.just("insert"), place, some),
            st.tuples(st.just("cut"), place, st.integers(1, 64)),
            st.tuples(st.just("end"), place, st.just(0)),
            st.tuples(st.just("copy"), place, st.integers(0, size - 1)),
        ),
        min_size=1,
        max_size=4,
    )


def mutated(raw: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    made = bytearray(raw)
    for kind, place, what in edits:
        if kind == "put":
            made[place : place + len(what)] = what
        elif kind == "insert":
            made[place:place] = what
        elif kind == "cut":
            del made[place : place + what]
        elif kind == "copy":
            made[place : place + 16] = made[what : what + 16]
        else:
            del made[place:]
    return bytes(made)


def resealed(path: Path) -> None:
    """Seal a changed file again, as somebody would who means it; leave it where it has no room for a seal."""
    raw = bytearray(path.read_bytes())
    start = raw.rfind(MARK) + len(MARK)
    if len(MARK) <= start <= len(raw) - 64:
        raw[start : start + 64] = sealed.BLANK.encode()
        path.write_bytes(raw)
        with suppress(ValueError):  # the change made another place look like the room for it
            sealed.seal(path)


def test_a_changed_delta_is_refused_or_read(delta, tmp_path):
    """Its bytes are changed anywhere; its footer, or what it says of itself, and then it is sealed again."""
    whole, before, after = delta
    path, raw = tmp_path / "delta.parquet", whole.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    table = pq.read_table(whole)
    metadata = json.loads(table.schema.metadata[b"collateral"])

    def check(case: tuple[str, list[Any]]) -> None:
        kind, edits = case
        if kind == "metadata":
            text = json.dumps(edited(metadata, edits))
            write_sealed(table.replace_schema_metadata({"collateral": text}), path)
        else:
            path.write_bytes(mutated(raw, edits))
        if kind == "footer":
            resealed(path)
        read = read_and_used(path, before)
        if kind == "bytes" and read is not None:
            assert all(torch.equal(read[name], after[name]) for name in after)

    def cases(kind: str, edits: st.SearchStrategy) -> st.SearchStrategy:
        return st.tuples(st.just(kind), edits)

    every = cases("bytes", changes(len(raw))), cases("footer", changes(len(raw), footer))
    fuzz(st.one_of(*every, cases("metadata", TREE_EDITS)), check, 200)


def read_and_used(path: Path, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Do with a delta whatever the workflow does; each step may refuse it. Return the weights after it."""
    outline = refused_in_one_line(lambda: read_outline(path))
    if outline is not None:
        for name in outline.metadata["parameters"]:
            refused_in_one_line(lambda name=name: list(read_parts(outline, name)))
    one = refused_in_one_line(lambda: read_increment(path))
    if outline is not None:
        refused_in_one_line(lambda: rebuild(before, [outline], parts=read_parts))
    return None if one is None else refused_in_one_line(lambda: rebuild(before, [one]))


# (b) data sets ------------------------------------------------------------------------------------------------------

RECORDS = {
    "zsre": [test_sources.QUESTION],
    "counterfact": [test_sources.NESTED, test_sources.FLAT],
    "mquake": [test_sources_mquake.CASE],
    "commonsense": [test_sources_commonsense.STATEMENT],
    "elken": [test_sources_elken.EVENT],
    "knowedit": [
        test_sources_knowedit.RECENT,
        test_sources_knowedit.COUNTERFACT,
        test_sources_knowedit.ZSRE,
        test_sources_knowedit.WIKIBIO,
    ],
    "ckd": [test_sources_ckd.REVERSE, test_sources_ckd.COMPOSITE, test_sources_ckd.COVERAGE],
}


def facts_or_a_refusal(loader: str, path: Path) -> None:
    facts = refused_in_one_line(lambda: load_facts(loader, path))
    for fact in facts or []:
        assert isinstance(fact, Fact)
        start, end = fact.subject_span()
        assert fact.text()[start:end] == fact.subject


def test_changed_records_are_refused_or_become_facts(tmp_path):
    """One field of a record, a whole record, the whole file; and any bytes of the embedded facts' two files."""
    path, folder = tmp_path / "records.json", tmp_path / "embedded"
    shutil.copytree(ROOT / "resources/embedded", folder)
    table, wordings = folder / "facts.tsv", folder / "relations.yaml"
    raws = {one: one.read_bytes() for one in (table, wordings)}
    raws[table] = b"".join(raws[table].splitlines(keepends=True)[:40])  # of one relation; it is read at once

    def check(case: tuple[Any, Any]) -> None:
        what, edits = case
        if isinstance(what, Path):
            what.write_bytes(mutated(raws[what], edits))
            facts_or_a_refusal("embedded", folder)
            what.write_bytes(raws[what])
            return
        loader, record = what
        value = [record, edited(record, edits)] if record is not None else edits
        path.write_text(json.dumps(value), encoding="utf-8")
        facts_or_a_refusal(loader, path)

    known = [(loader, record) for loader, records in RECORDS.items() for record in records]
    names = st.sampled_from(sorted({key for _, record in known for key in record}))
    foreign = VALUES | st.lists(st.dictionaries(names, VALUES, max_size=6), max_size=3)
    fuzz(
        st.one_of(
            st.tuples(st.sampled_from(known), TREE_EDITS),
            st.tuples(st.tuples(st.sampled_from(sorted(RECORDS)), st.none()), foreign),
            *(st.tuples(st.just(one), changes(len(raw))) for one, raw in raws.items()),
        ),
        check,
        80,
    )


# (c) the config -----------------------------------------------------------------------------------------------------


def test_a_config_that_was_changed_anywhere_is_refused_or_a_study():
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    schema = ROOT / "workflow/schemas/config.schema.yaml"

    def check(edits: list[tuple[float, str, float, Any]]) -> None:
        study = refused_in_one_line(lambda: load_study(edited(config, edits), schema))
        if study is not None:
            for cell in study.cells:
                assert study.checkpoints(cell)

    keys = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=8)
    of_yaml = (
        VALUES
        | st.dates()
        | st.datetimes()
        | st.dictionaries(keys, PLAIN, max_size=3)
        | st.binary(max_size=3)
    )
    fuzz(tree_edits(of_yaml), check, 20)


# (d) pages ----------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("<", ">", "&", '"', "'", "`", "=", "/", "\\", "{", "}", "{{", "${", "%"),
        *("\x00", "\x1b", "\r", "\n", "\u2028", "\u202e"),
        *("<script>", "</script>", "<!--", "-->", "<![CDATA[", "]]>", "</style>", "</title>", "</table>"),
        *(
            "<svg/onload=",
            "<img src=x onerror=",
            "javascript:",
            "&lt;script&gt;",
            "&#60;",
            "<zzz>",
            " onfocus=z ",
        ),
    ]
)
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8).map(
    "".join
)


# columns whose text comes from a config, a data set, a task or a model
FREE = {
    *("model", "dataset", "editor", "suite", "task", "ability", "parameter", "reasons", "fact_id"),
    *("subject", "prompt", "target", "target_new", "target_true", "generated"),
}
MARK_START, MARK_END = "qqstartqq", "qqendqq"


def page_documents(texts: list[str]) -> dict[str, test_pages.Document]:
    """Return the report of the small tables, with one of the texts behind each free text in them."""
    tables = report_frames.tables() | inferred_frames.tables()
    told = [f"{MARK_START}{text}{MARK_END}" for text in texts]
    values = sorted(
        {
            v
            for table in tables.values()
            for name in FREE & {*table.columns}
            for v in table[name]
            if isinstance(v, str) and v
        }
    )
    new = {old: old + told[place % len(told)] for place, old in enumerate(values) if old != "unedited"}
    renamed = {
        name: table.with_columns(
            pl.col(column).replace(new) for column in FREE if table.schema.get(column) == pl.String
        )
        for name, table in tables.items()
    }
    made = pages.render_pages(renamed, report_frames.run_info(told[0]))
    assert not [name for name, page in made.items() if "\x00" in page]
    return {name: test_pages.Document(page) for name, page in made.items()}


def structure(documents: dict[str, test_pages.Document]) -> dict[str, Counter[Any]]:
    """Return how often each kind of element is on each page: its tag and the names of its attributes."""
    return {
        name: Counter((tag, *sorted(attributes)) for tag, attributes in document.elements)
        for name, document in documents.items()
    }


def test_any_text_in_the_tables_stays_text_on_the_pages():
    plain = page_documents(["of no meaning"])
    marks = {name: document.text.count(MARK_START) for name, document in plain.items()}
    assert sum(marks.values()) > 100

    def check(texts: list[str]) -> None:
        if not any(texts):
            return  # the first case of every round is the plainest
        made = page_documents(texts)
        assert structure(made) == structure(plain)
        for name, document in made.items():
            assert document.text.count(MARK_START) == document.text.count(MARK_END) == marks[name]
            for href in document.attributes("href"):
                assert re.fullmatch(r"[\w./-]*(#[\w.-]+)?", href), href
            for script in document.scripts[:-1]:
                assert not set("<>&\u2028\u2029\u202e") & set(script)

    fuzz(st.lists(TEXTS, min_size=8, max_size=24), check, 2)
