"""Reading answers: as the benchmarks' published scorers do, and strictly.

The published readings are generous in odd ways (a letter anywhere counts, so "A or B" is right twice; digits are joined, so
"1 or 2" is twelve). The strict ones take an answer only if it is plain what was answered; else it is unparsed, and wrong.
"""

import re
from collections.abc import Sequence

from svlm_jax.eval.items import Grade

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LEAD = r"^(?:the )?(?:best |correct |final )?(?:answer|option|choice)?(?: is)?\s*:?\s*"


def letter(response: str, options: Sequence[str]) -> str | None:
    """The one letter that a response chooses: "B", "(b)", "B. the red one", "The answer is B", or one option word for word."""
    text = response.strip().strip("*\"'`")
    allowed = LETTERS[: len(options)] if options else LETTERS[:5]
    found = re.match(LEAD + rf"\(?([{allowed}{allowed.lower()}])(?:[).:,]+|\s*$)(.*)", text, re.IGNORECASE | re.DOTALL)
    if found:
        others = {name.upper() for name in re.findall(rf"(?<![\w'])\(?([{allowed}])(?![\w'])", _rest(found[2], options))}
        return found[1].upper() if not others - {found[1].upper()} else None
    plain = _plain(text)
    same = [name for name, option in zip(LETTERS, options, strict=False) if _plain(option) == plain and plain]
    return same[0] if len(same) == 1 else None


def _rest(text: str, options: Sequence[str]) -> str:
    """What follows the letter, without the words of the option itself, which may hold letters of their own."""
    plain = text.strip()
    return "" if any(plain.rstrip(".").lower() == option.strip().rstrip(".").lower() for option in options) else plain


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def yes_no(response: str) -> str | None:
    """ "Yes" or "No" if the response begins with it and does not go on with the other."""
    words = re.findall(r"[a-z]+", response.lower())
    if not words or words[0] not in ("yes", "no", "y", "n"):
        return None
    said = "Yes" if words[0][0] == "y" else "No"
    other = "no" if said == "Yes" else "yes"
    return None if other in words[1:] else said


def count(response: str) -> int | None:
    """The number, if the response holds exactly one."""
    numbers = re.findall(r"\d+", response)
    return int(numbers[0]) if len(numbers) == 1 else None


# ------------------------------------------------------------------------------------- grades, official beside strict


def grade_letter_anywhere(response: str, answer: str, options: Sequence[str]) -> Grade:
    """OVO-Bench: right if the letter occurs in the response, wherever."""
    return _grade(float(answer in response), letter(response, options), answer)


def grade_first_letter(response: str, answer: str, options: Sequence[str]) -> Grade:
    """StreamingBench: right if the response begins with the letter."""
    return _grade(float(response[:1] == answer), letter(response, options), answer)


def grade_found_letter(response: str, answer: str, options: Sequence[str]) -> Grade:
    """Video-MME, MLVU, MVBench, LongVideoBench: right if the first letter that stands alone is it.

    Where harnesses draw a random letter for a response without one, it is wrong here, and counted as unparsed.
    """
    allowed = LETTERS[: max(len(options), 2)]
    found = re.search(rf"(?<![A-Za-z0-9])([{allowed}])(?![A-Za-z0-9'])", response)
    return _grade(float(found is not None and found[1] == answer), letter(response, options), answer)


def grade_joined_digits(response: str, answer: str) -> Grade:
    """OVO-Bench REC: right if all digits of the response, joined, are the count."""
    number = count(response)
    return _grade(float("".join(re.findall(r"\d+", response)) == answer), None if number is None else str(number), answer)


def grade_yes_no(response: str, answer: str) -> Grade:
    """OVO-Bench SSR and CRR: right if "Yes" or "No" occurs in the response as written, or it is "Y" or "N"."""
    return _grade(float(answer in response or response == answer[0]), yes_no(response), answer)


def grade_contained(response: str, answer: str) -> Grade:
    """StreamingBench's proactive output: right if the text occurs in the response. Strict: as whole words, in any case."""
    found = f" {_plain(answer)} " in f" {_plain(response)} "
    return Grade(float(bool(answer) and answer in response), float(bool(_plain(answer)) and found), bool(response.strip()))


def _grade(official: float, read: str | None, answer: str) -> Grade:
    return Grade(official, float(read == answer), read is not None)
