"""MQuAKE: cases of one or more edits, with multi-hop questions that hold only when all of them are in."""

from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import Fact, Probe, first_records
from collateral.data.records import Record, read_records, refuse_repeated

ABOUT = About(
    title="MQuAKE (counterfactual, temporal and hard cases)",
    licence="MIT",
    citation=(
        "Zexuan Zhong, Zhengxuan Wu, Christopher D. Manning, Christopher Potts, Danqi Chen. MQuAKE: "
        "Assessing Knowledge Editing in Language Models via Multi-Hop Questions. EMNLP 2023"
    ),
    home="https://github.com/princeton-nlp/MQuAKE",
)


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return one fact per edit of each case, in file order; the whole file is checked, then cut to `limit` cases.

    The facts of a case share a `case_id` and stand in the order of `requested_rewrite`. `question` is the edit's
    paraphrase. The multi-hop `questions`, with `new_answer`, are portability probes of the case's last fact: right
    after that edit, and never before, they can hold. Of `single_hops` only the aliases of an edit's old answer are
    taken, where the hop asks what the edit asks. `answer`, `new_single_hops` and `orig` are not read: the first is
    what the questions had before, the second repeats the edits, with hops that no edit touches.

    Cases share edits (in the file of hard cases, 1,716 edits are 769 different ones), and some contradict each other.
    That is a matter of the sequence, not of the data set: nothing is left out here.

    Raises:
        CollateralError: a record is malformed, or a `case_id` stands twice; the message names file, record and field.
    """
    records = read_records(path)
    facts = [fact for record in records for fact in _case(record)]
    refuse_repeated(records, "case_id")
    return first_records(facts, limit)


def _case(record: Record) -> list[Fact]:
    case_id = f"mquake-{record.number('case_id'):06d}"
    answer = record.text("new_answer")
    questions = tuple(Probe(question, answer) for question in record.texts("questions"))
    edits = record.records("requested_rewrite")
    aliases = _old_aliases(record)
    return [
        _fact(edit, f"{case_id}-{place}", case_id, aliases, questions if place == len(edits) else ())
        for place, edit in enumerate(edits, start=1)
    ]


def _old_aliases(record: Record) -> dict[tuple[str, str], tuple[str, ...]]:
    hops = record.records("single_hops")
    return {
        (hop.text("question"), hop.text("answer")): hop.texts("answer_alias", may_be_empty=True)
        for hop in hops
    }


def _fact(
    edit: Record,
    fact_id: str,
    case_id: str,
    aliases: dict[tuple[str, str], tuple[str, ...]],
    questions: tuple[Probe, ...],
) -> Fact:
    question, target_true = edit.text("question"), edit.record("target_true").text("str")
    return Fact(
        fact_id=fact_id,
        subject=edit.text("subject"),
        relation=edit.text("relation_id"),
        prompt=edit.template("prompt"),
        target_new=edit.record("target_new").text("str"),
        target_true=target_true,
        true_aliases=aliases.get((question, target_true), ()),
        paraphrases=(question,),
        portability=questions,
        source=f"MQuAKE, {edit.source}",
        case_id=case_id,
    )
