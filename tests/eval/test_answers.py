"""The published readings with all their quirks, and the strict ones beside them."""

import pytest

from svlm_jax.eval import answers

COLOURS = ("red", "blue", "A green one", "none of these")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (B) ", "B"),
        ("B.", "B"),
        ("B. blue", "B"),
        ("B) blue.", "B"),
        ("**B**", "B"),
        ("The answer is B.", "B"),
        ("Answer: C", "C"),
        ("C. A green one", "C"),  # the letter in the option's own words is no second answer
        ("blue", "B"),
        ("Blue!", "B"),
        ("A or B", None),
        ("A, B", None),
        ("B. Or rather C.", None),
        ("A green bus passes", None),  # an article
        ("E", None),  # no such option
        ("I cannot tell", None),
        ("", None),
    ],
)
def test_a_letter_is_read_only_where_it_is_plain(response, letter):
    assert answers.letter(response, COLOURS) == letter


@pytest.mark.parametrize(
    ("response", "official", "strict", "parsed"),
    [
        ("B", 1, 1, True),
        ("A or B", 1, 0, False),  # a letter anywhere is enough, so two letters are right twice
        ("Because of the Bus", 1, 0, False),
        ("blue", 0, 1, True),
        ("b", 0, 1, True),
        ("C", 0, 0, True),
        ("", 0, 0, False),
    ],
)
def test_letter_anywhere(response, official, strict, parsed):
    grade = answers.grade_letter_anywhere(response, "B", COLOURS)
    assert (grade.official, grade.strict, grade.parsed) == (official, strict, parsed)


def test_first_letter():
    assert answers.grade_first_letter("B is it, not A", "B", COLOURS).official == 1
    assert answers.grade_first_letter("B is it, not A", "B", COLOURS).strict == 0
    assert answers.grade_first_letter("(B)", "B", COLOURS).official == 0
    assert answers.grade_first_letter("(B)", "B", COLOURS).strict == 1


def test_the_first_letter_that_stands_alone():
    assert answers.grade_found_letter("Best option: (B)", "B", COLOURS).official == 1
    assert answers.grade_found_letter("BLUE", "B", COLOURS).official == 0  # part of a word
    assert answers.grade_found_letter("no idea", "B", COLOURS).parsed is False  # no letter is drawn by chance


@pytest.mark.parametrize(
    ("response", "official", "strict", "parsed"),
    [("12", 1, 1, True), ("12 times", 1, 1, True), ("1 or 2", 1, 0, False), ("2", 0, 0, True), ("twelve", 0, 0, False)],
)
def test_digits_are_joined(response, official, strict, parsed):
    grade = answers.grade_joined_digits(response, "12")
    assert (grade.official, grade.strict, grade.parsed) == (official, strict, parsed)


@pytest.mark.parametrize(
    ("response", "answer", "official", "strict", "parsed"),
    [
        ("Yes", "Yes", 1, 1, True),
        ("Y", "Yes", 1, 1, True),
        ("yes", "Yes", 0, 1, True),  # the published scorer minds the case
        ("Not yet", "No", 1, 0, False),  # "No" is in "Not"
        ("Yes and No", "No", 1, 0, False),
        ("N", "Yes", 0, 0, True),
        ("", "No", 0, 0, False),
    ],
)
def test_yes_and_no(response, answer, official, strict, parsed):
    grade = answers.grade_yes_no(response, answer)
    assert (grade.official, grade.strict, grade.parsed) == (official, strict, parsed)


def test_contained_text():
    grade = answers.grade_contained("It says GOAL now", "GOAL")
    assert (grade.official, grade.strict) == (1, 1)
    assert answers.grade_contained("goal", "GOAL").official == 0 and answers.grade_contained("goal", "GOAL").strict == 1
    assert answers.grade_contained("GOALS", "GOAL").official == 1 and answers.grade_contained("GOALS", "GOAL").strict == 0
