"""Words as people read them in a file or on a screen: one line after the other, nothing else."""

import unicodedata


def clean_lines(text: str) -> list[str]:
    """The lines of a text that hold something, stripped, without control characters (a terminal would obey them)."""
    lines = (
        "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cs")) for line in text.expandtabs(1).splitlines()
    )
    return [line.strip() for line in lines if line.strip()]


def clock(seconds: float, *, mark: str = ".") -> str:
    """HH:MM:SS.mmm of a stream time; hours grow beyond two digits. `mark` stands before the milliseconds."""
    whole = max(0, round(1000 * seconds))
    minutes, milliseconds = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def seconds_of(clock: str) -> float:
    """The inverse of `clock`. Raises ValueError when the text is no such time."""
    hours, minutes, rest = clock.strip().replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def span(start: float, end: float, *, mark: str = ".") -> str:
    """The timing line of a cue. A cue must end after it starts: one of less than a millisecond is given that."""
    begin = round(1000 * start)
    return f"{clock(begin / 1000, mark=mark)} --> {clock(max(round(1000 * end), begin + 1) / 1000, mark=mark)}"
