import argparse

import pytest

from svlm_jax.cli.values import number, size, window


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (number(int, least=1), "7", 7),
        (number(float, above=0), "0.5", 0.5),
        (number(float, least=0), "0", 0.0),
        (size, "1280x720", (1280, 720)),
        (size, "640X360", (640, 360)),
        (window, "vision=8", {"vision": 8.0}),
        (window, "vision=0.5, text=16,sink=0,tail=3", {"vision": 0.5, "text": 16.0, "sink": 0, "tail": 3}),
        (window, "sink=none,tail=none", {"sink": None, "tail": None}),
    ],
)
def test_good_values(convert, text, value):
    assert convert(text) == value


PARTS = "is not one of vision=SECONDS, text=SECONDS, sink=TOKENS, tail=TOKENS, each at most once"


@pytest.mark.parametrize(
    ("convert", "text", "complaint"),
    [
        (number(int, least=1), "0", "'0' is not a whole number of at least 1"),
        (number(int, least=1), "1.5", "'1.5' is not a whole number of at least 1"),
        (number(float, above=0), "0", "'0' is not a number above 0"),
        (number(float, above=0), "nan", "'nan' is not a number above 0"),
        (number(float, above=0), "inf", "'inf' is not a number above 0"),
        (number(float, least=0), "-1", "'-1' is not a number of at least 0"),
        (number(float, least=0), "soon", "'soon' is not a number of at least 0"),
        (size, "720p", "'720p' is not a picture size such as 1280x720"),
        (size, "0x720", "'0x720' is not a picture size such as 1280x720"),
        (window, "", f"'' {PARTS}"),
        (window, "vision", f"'vision' {PARTS}"),
        (window, "vision=-1", "'-1' is not a number of at least 0"),
        (window, "vision=none", "'none' is not a number of at least 0"),
        (window, "vision=1,vision=2", f"'vision=2' {PARTS}"),
        (window, "sight=4", f"'sight=4' {PARTS}"),
        (window, "sink=1.5", "'1.5' is not a whole number of at least 0"),
    ],
)
def test_bad_values_are_named(convert, text, complaint):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        convert(text)
    assert str(caught.value) == complaint
