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


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (number(int, least=1), "0"),
        (number(int, least=1), "1.5"),
        (number(float, above=0), "0"),
        (number(float, above=0), "nan"),
        (number(float, above=0), "inf"),
        (number(float, least=0), "-1"),
        (number(float, least=0), "soon"),
        (size, "720p"),
        (size, "0x720"),
        (window, ""),
        (window, "vision"),
        (window, "vision=-1"),
        (window, "vision=none"),
        (window, "vision=1,vision=2"),
        (window, "sight=4"),
        (window, "sink=1.5"),
    ],
)
def test_bad_values_are_named(convert, text):
    with pytest.raises(argparse.ArgumentTypeError, match=r".") as caught:
        convert(text)
    assert repr(text.partition("=")[2] or text) in str(caught.value) or text.split(",")[-1] in str(caught.value)
