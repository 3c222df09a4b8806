"""Help that fits the terminal: sentences are broken between words at its width, examples keep their lines."""

import argparse
import re
import shutil
import textwrap

WIDEST = 120  # columns: longer lines are hard to read
COMMENT = re.compile(r"^(?P<command>  svlm .*?\S) {2,}(?P<comment>\S.*)$")


def columns() -> int:
    """Of the terminal, as far as they are used."""
    return max(40, min(WIDEST, shutil.get_terminal_size().columns) - 2)


class HelpFormatter(argparse.HelpFormatter):
    """An argparse formatter for descriptions of paragraphs and of lines that begin with blanks, which stay as they are."""

    def __init__(self, prog: str, **options: object) -> None:
        super().__init__(prog, width=columns(), max_help_position=28)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        paragraph: list[str] = []

        def flush() -> None:
            lines.extend(textwrap.wrap(" ".join(paragraph), width, break_long_words=False, break_on_hyphens=False))
            paragraph.clear()

        for line in text.splitlines():
            if line and not line.startswith(" "):
                paragraph.append(line)
                if line.endswith(":"):
                    flush()
                continue
            flush()
            lines.extend(_fitted(line, width))
        flush()
        return "".join(f"{indent}{line}\n" for line in lines)


def _fitted(line: str, width: int) -> list[str]:
    """A line that stays as it is; where it is too long, what an example says about its command goes below the command."""
    found = COMMENT.match(line)
    if len(line) <= width or found is None:
        return [line]
    return [found["command"], f"      {found['comment']}"]
