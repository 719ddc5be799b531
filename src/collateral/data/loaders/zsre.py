"""zsRE question answering, in the form with portability questions and in the plain training form."""

from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import Fact, Probe, template_from_text
from collateral.data.records import Record, log_left_out, read_records

ABOUT = About(
    title="zsRE (evaluation form with portability questions, and training form)",
    licence="unclear: zsRE states none; the code that gives out these forms (MEND, EasyEdit) is MIT",
    citation=(
        "Omer Levy, Minjoon Seo, Eunsol Choi, Luke Zettlemoyer. Zero-Shot Relation Extraction via Reading"
        " Comprehension. CoNLL 2017; "
        "Eric Mitchell, Charles Lin, Antoine Bosselut, Chelsea Finn, Christopher D. Manning. Fast Model "
        "Editing at Scale. ICLR 2022; "
        "Yunzhi Yao, Peng Wang, Bozhong Tian, Siyuan Cheng, Zhoubo Li, Shumin Deng, Huajun Chen, Ningyu "
        "Zhang. Editing Large Language Models: Problems, Methods, and Opportunities. EMNLP 2023"
    ),
    home="https://github.com/zjunlp/EasyEdit",
    probes=4,
)

LOCALITY_PREFIX = "nq question: "


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return the edit requests of a zsRE file, in file order; the file is read to its end, then cut to `limit`.

    The rewrite prompt is the question `src`, the edit target `alt`, the right answers `answers`. Records whose `alt`
    is empty or already among the right answers ask for no change: they are left out, and their number is logged.
    `pred` and `cond` are not read.

    Raises:
        CollateralError: a record is malformed; the message names file, record and field.
    """
    records = read_records(path)
    with_portability = any("portability" in record for record in records)
    facts: list[Fact] = []
    empty = true = 0
    for record in records:
        alternative, answers = record.text("alt", may_be_empty=True), record.texts("answers")
        if not alternative:
            empty += 1
        elif alternative in answers:
            true += 1
        else:
            facts.append(_fact(record, alternative, answers, with_portability))
    reasons = {"'alt' is among the true answers": true, "'alt' is empty": empty}
    log_left_out(path, len(records), reasons)
    return facts[:limit]


def _fact(record: Record, alternative: str, answers: tuple[str, ...], with_portability: bool) -> Fact:
    subject = record.text("subject")
    return Fact(
        fact_id=f"zsre-{record.index:06d}",
        subject=subject,
        relation="",
        prompt=template_from_text(record.text("src"), subject, record.where("src")),
        target_new=alternative,
        target_true=answers[0],
        true_aliases=answers[1:],
        paraphrases=(record.text("rephrase"),),
        neighborhood=(Probe(_locality_question(record), record.text("loc_ans")),),
        portability=(_portability(record),) if with_portability else (),
        question_type="question",
        source=f"zsRE, {record.source}",
    )


def _locality_question(record: Record) -> str:
    # DIFFERS: the file marks these questions with a prefix and gives them no question mark; here they are asked
    # in the same form as the rewrite questions.
    question = record.text("loc").removeprefix(LOCALITY_PREFIX)
    return question if question.endswith("?") else f"{question}?"


def _portability(record: Record) -> Probe:
    portability = record.record("portability")
    return Probe(portability.text("New Question"), portability.text("New Answer"))
