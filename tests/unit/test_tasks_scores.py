"""How the RECT tasks score what a model writes: right, wrong, empty, rambling, several entities, other scripts."""

import pytest

from collateral.tasks.rect import answers, arithmetic, entities, passages, summaries


@pytest.mark.parametrize(
    ("output", "right", "answered"),
    [
        (" True", 1.0, 1.0),
        ("\n\n'true', because it follows", 1.0, 1.0),
        ("\nAnswer:\n\nTrue", 1.0, 1.0),
        (" False.", 0.0, 1.0),
        (" truest of all", 0.0, 0.0),
        (" It is true", 0.0, 0.0),
        ("", 0.0, 0.0),
        (" … ", 0.0, 0.0),
    ],
)
def test_only_the_first_word_is_an_answer(output: str, right: float, answered: float) -> None:
    assert answers.entailment({"label": 0}, [output]) == {"acc": right, "answered": answered}


def test_labels_are_those_of_the_public_data() -> None:
    assert answers.entailment({"label": 1}, ["False"])["acc"] == 1
    assert answers.closed_question({"label": 1}, ["Yes, it is"])["acc"] == 1
    assert answers.closed_question({"label": 0}, [" no"])["acc"] == 1
    assert answers.closed_question({"label": 0}, [" not at all"]) == {"acc": 0, "answered": 0}
    assert answers.sentiment({"label": 1}, [" Positive"])["acc"] == 1
    assert answers.sentiment({"label": 0}, [" negative"])["acc"] == 1


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        (" B", "B"),
        ("(C)because", "C"),
        ("D.", "D"),
        (" A\nQ: next", "A"),
        (" A dog", ""),
        ("\nA:", ""),
        ("\nA: (D)", "D"),
        (" Bob", ""),
        (" b", ""),
        (" E", ""),
        ("", ""),
    ],
)
def test_a_letter_has_to_stand_by_itself(output: str, letter: str) -> None:
    assert answers.first_letter(output) == letter
    assert answers.reply({"answers": "B"}, [output])["acc"] == (letter == "B")


SOLVED = {"answer": "She has 3 * 6 = <<3*6=18>>18 eggs.\n#### 1,018"}


@pytest.mark.parametrize(
    ("output", "first", "last"),
    [
        (" 1018", 1.0, 1.0),
        (" $1,018.00.", 1.0, 1.0),
        (" 1,018 eggs, not 18", 1.0, 0.0),
        (" 18 and 1000 make 1018.", 0.0, 1.0),
        (" 11018", 0.0, 0.0),
        (" eighteen", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_numbers_are_compared_as_numbers(output: str, first: float, last: float) -> None:
    assert arithmetic.first_number(SOLVED, [output])["acc"] == first
    assert arithmetic.last_number(SOLVED, [output])["acc"] == last
    assert arithmetic.first_number(SOLVED, [output])["answered"] == any(c.isdigit() for c in output)


def test_a_negative_number_keeps_its_sign() -> None:
    assert arithmetic.last_number({"answer": "x\n#### -5"}, ["so it is -5."])["acc"] == 1
    assert arithmetic.last_number({"answer": "x\n#### 5"}, ["so it is -5."])["acc"] == 0


def test_the_released_score_finds_a_digit_in_any_number() -> None:
    doc = {"answer": "x\n#### 1"}
    assert arithmetic.substring(doc, [" 2111"]) == {"acc": 1.0}
    assert arithmetic.first_number(doc, [" 2111"])["acc"] == 0.0
    assert arithmetic.substring(SOLVED, [" 1018"]) == {"acc": 0.0}  # the comma counts


@pytest.mark.parametrize(
    ("output", "contains", "exact"),
    [
        (" Bob Russell", 1.0, 1.0),
        ("\nThe Bob Russell!\nQuestion: next", 1.0, 1.0),
        (" It was Bob Russell, I think", 1.0, 0.0),
        ("\nA:\n\nBob Russell", 1.0, 1.0),
        (" Bobby Russells", 0.0, 0.0),
        (" I do not know.\nBob Russell", 0.0, 0.0),
        (" Zoë", 1.0, 1.0),
        ("", 0.0, 0.0),
    ],
)
def test_an_answer_counts_as_whole_words_of_the_first_line(
    output: str, contains: float, exact: float
) -> None:
    doc = {"answer": ["Bob Russell", "Zoë", "!"]}
    assert passages.open_question(doc, [output]) == {"contains": contains, "exact_match": exact}


def open_item(passage: str, *answer: str) -> dict[str, object]:
    return {"passage": passage, "question": "who is it", "answer": list(answer)}


def test_the_released_score_counts_the_passage_as_the_answer() -> None:
    """The output is empty, and the answer in the passage counts: a single word as often as it stands there."""
    assert passages.released(open_item("Ann met Bob and Ann", "Ann"), [""])["released"] == (2, 0, 0)
    assert passages.released(open_item("Ann Lee met Bob", "Ann Lee"), [""])["released"] == (1, 0, 1)
    assert passages.released(open_item("Ann met Bob", "Eve"), [""])["released"] == (0, 0, 0)
    assert passages.released(open_item("Ann met Bob", "Eve"), [" Eve"])["released"] == (1, 1, 0)
    assert passages.open_question(open_item("Ann met Bob", "Bob"), [""])["contains"] == 0


def test_the_released_flag_is_never_cleared() -> None:
    """Three items that a clean flag would all count: after the first, only its first word is looked at."""
    items = [passages.released(open_item("Ann Lee met Bob", "Ann Lee"), [""])["released"]] * 3
    assert passages.released_share(items) == pytest.approx(1 / 3)
    assert sum(clean for clean, _, _ in items) / 3 == 1


def counted_plainly(texts: list[str], accepted: list[set[str]]) -> int:
    """The released counting written as one loop over all items with one flag, as its description says."""
    count, flag = 0, False
    for text, answer in zip(texts, accepted, strict=True):
        words = text.split(" ")
        if words[0] in answer or words[-1] in answer:
            count += 1
            continue
        for start in range(len(words) - 1):
            if words[start] in answer:
                count += 1
                continue
            for end in range(start + 1, len(words)):
                if " ".join(words[start : end + 1]) in answer:
                    count += 1
                    flag = True
                    break
            if flag:
                break
    return count


def test_the_released_share_is_that_of_one_loop_over_all_items() -> None:
    docs = [
        open_item("Ann met Bob, Ann Lee and Ann", "Ann"),
        open_item("Bob Low met Ann Lee", "Ann Lee", "Bob Low"),
        open_item("Eve", "Eve"),
        open_item("it was a red fox", "red fox"),
        open_item("nobody", "Cy"),
    ]
    outputs = ["", " none", " so Eve is it", "", " Cy"]
    texts = [
        passages.normalised(passages.prompt(doc) + output) for doc, output in zip(docs, outputs, strict=True)
    ]
    accepted = [{passages.normalised(answer) for answer in doc["answer"]} for doc in docs]
    for order in ([0, 1, 2, 3, 4], [3, 4, 2, 1, 0], [2, 0, 4, 1, 3]):
        items = [passages.released(docs[i], [outputs[i]])["released"] for i in order]
        plain = counted_plainly([texts[i] for i in order], [accepted[i] for i in order])
        assert passages.released_share(items) == pytest.approx(plain / len(order))


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (" Ann Lee, Bob; Zoë  Kravitz.\nText: more", {"ann lee", "bob", "zoë kravitz"}),
        ("\n- Trinidad and Tobago", {"trinidad and tobago"}),
        (' "Ann", and Bob', {"ann", "bob"}),
        (" None.", set()),
        ("", set()),
        (" Ann, ANN, ann", {"ann"}),
        (" 北京, 上海", {"北京", "上海"}),
        (" 1. U.N.", {"u.n"}),
    ],
)
def test_an_output_is_cut_into_entities(output: str, named: set[str]) -> None:
    assert entities.entities(output) == named


def test_f1_is_counted_by_entities() -> None:
    doc = {"entities": ["Ann Lee", "U.N.", "Ann Lee"]}
    assert entities.found(doc, [" ann lee, u.n."]) == {"f1": (4.0, 4.0)}
    assert entities.found(doc, [" Ann, U.N."]) == {"f1": (2.0, 4.0)}
    assert entities.found(doc, [""]) == {"f1": (0.0, 2.0)}
    assert entities.found({"entities": []}, [" none"]) == {"f1": (0.0, 0.0)}
    assert entities.found({"entities": []}, [" the quick fox"]) == {"f1": (0.0, 1.0)}


def test_micro_f1_of_three_sentences_by_hand() -> None:
    """TP 1 + 0 + 0, FP 1 + 0 + 1, FN 1 + 0 + 0: F1 = 2 / (2 + 2 + 1)."""
    assert entities.micro_f1([(2.0, 4.0), (0.0, 0.0), (0.0, 1.0)]) == pytest.approx(0.4)
    assert entities.micro_f1([(0.0, 0.0)]) == 1.0
    assert entities.micro_f1([(0.0, 3.0)]) == 0.0


def test_rouge_by_hand() -> None:
    """ROUGE-1: P 2/2, R 2/4, F 2/3. ROUGE-2: P 1/1, R 1/3, F 1/2. ROUGE-L: as ROUGE-1."""
    scores = summaries.summary({"summary": "Ann wants green tea"}, ["\n\ngreen tea\n\nAnn wants"])
    assert scores == pytest.approx({"rouge1": 2 / 3, "rouge2": 1 / 2, "rougeL": 2 / 3, "rouge": 11 / 18})
    empty = summaries.summary({"summary": "Ann wants tea"}, [" "])
    assert set(empty.values()) == {0.0}
