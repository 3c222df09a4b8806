"""Recall against delay in short: who is asked what and when, rows that are kept, what is made of them."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import recall
from benchmarks.recall import AGES, BUDGET, CELLS, GRID, MODES, memory_of
from svlm_jax.synthetic.facts import EVERY, Facts
from tests import checkpoints


@pytest.mark.slow
def test_rows_are_measured_once_and_drawn(tmp_path, capsys, monkeypatch):
    file = tmp_path / "found.json"
    argv = ["--minutes", "3", "--ages", "1,2", "--seeds", "8", "--model", str(checkpoints.facts()), "--out", str(file)]
    assert recall.main([*argv, "--modes", "fifo"]) == 0
    first = json.loads(file.read_text())["rows"]["fifo, stream 8"]
    measured = []
    measure = recall.measure
    monkeypatch.setattr(recall, "measure", lambda *args: measured.append(args[1]) or measure(*args))
    assert recall.main([*argv, "--modes", "none,fifo"]) == 0
    assert measured == ["none"], "the other is there already"
    rows = json.loads(file.read_text())["rows"]
    assert rows["fifo, stream 8"] == first and first["memory"]["budget"] == BUDGET
    facts = Facts(8)
    wanted = [sum(abs(180 - fact.end - 60 * age) <= 30 for fact in facts.until(180)) for age in (1, 2)]
    assert [row["asked"] for row in rows.values()] == [wanted, wanted] and min(wanted) > 0
    assert rows["none, stream 8"]["layers"] == [0.0, 0.0] and first["layers"] == [1.0, 1.0], "what has passed is in a memory"
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size > (800, 400)
    shown = capsys.readouterr().out
    assert "there already" in shown and "{}" in shown


def test_every_memory_is_asked_equally_much_about_every_age():
    facts, asked = Facts(1), {age: [] for age in AGES}
    for now in np.arange(GRID, 95 * 60 + GRID, GRID):
        for age, fact in recall.due(facts, now, AGES):
            assert now >= 61 * 60 and abs(now - fact.end - 60 * age) <= EVERY / 2
            again = [one.question for one in facts.until(now) if one.begin > fact.begin]
            assert fact.question not in again, "the flag was not seen again since"
            asked[age].append(fact.number)
    for numbers in asked.values():
        assert len(numbers) == len(set(numbers)) >= 30


def test_all_but_the_full_memory_have_the_same_budget():
    minutes = 95
    seen = minutes * 60 / GRID * CELLS
    assert memory_of(MODES["full"], minutes).budget >= seen and 5 <= seen / BUDGET <= 20
    memories = {name: memory_of(mode, minutes) for name, mode in MODES.items()}
    assert len(set(memories.values())) == len(memories)
    assert memories["window"].window / GRID * CELLS == BUDGET == memories["last 180 frames"].frames / 2 * CELLS
    budgets = {name: memory.budget for name, memory in memories.items() if name != "full" and hasattr(memory, "budget")}
    assert len(budgets) > 4 and set(budgets.values()) == {BUDGET}
    for better, worse in recall.CLAIMS:
        assert better in MODES and worse in MODES


def test_claims_are_held_against_every_seed():
    def row(mode, seed, right):
        return {"mode": mode, "seed": seed, "right": right, "asked": [10, 10]}

    rows = {"a": row("vsb", 1, [9, 5]), "b": row("vsb", 2, [3, 1]), "c": row("none", 1, [1, 1]), "d": row("none", 2, [2, 4])}
    found = recall.claims(rows)
    assert found == {"vsb > none": {"difference": 0.25, "each": [0.6, -0.1], "holds": False}}
    rows["b"]["right"] = [5, 5]
    assert recall.claims(rows)["vsb > none"]["holds"]


def test_what_cannot_be_asked_is_named(capsys):
    for argv, sentence in ((["--modes", "all"], "--modes has 'all'"), (["--minutes", "30"], "expected 61 or more")):
        with pytest.raises(SystemExit):
            recall.main(argv)
        assert sentence in " ".join(capsys.readouterr().err.split())
