"""The list of breaks fits the code that it breaks; running them is `make mutants`."""

from tests.mutation.__main__ import ROOT, without_anchor
from tests.mutation.mutants import MUTANTS


def test_every_break_has_its_place_and_its_tests():
    assert without_anchor(list(MUTANTS)) == []
    assert {test for mutant in MUTANTS for test in mutant.tests if not (ROOT / test.split("::")[0]).exists()} == set()
