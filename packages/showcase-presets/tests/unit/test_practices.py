"""The table of practices is the same in README and manual, and every name in it exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from celery_showcase_presets.doctor import CHECKS

PACKAGE = Path(__file__).parents[2]
MANUAL = PACKAGE.parents[1] / "docs/showcase-presets.md"


def table(path):
    """The rows, each a list of its cells."""
    text = path.read_text()
    start = text.index("| practice | what the presets do |")
    lines = text[start : text.index("\n\n", start)].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_readme_and_manual_have_the_same_table():
    assert table(PACKAGE / "README.md") == table(MANUAL)


def test_every_check_of_doctor_stands_in_the_table_and_the_other_way_round():
    named = [name for row in table(MANUAL) for name in names(row[2])]
    assert set(named) == set(CHECKS)


@pytest.mark.parametrize("row", table(MANUAL), ids=lambda row: row[0])
def test_the_tests_that_prove_a_practice_exist(row):
    tests = "".join(path.read_text() for path in sorted((PACKAGE / "tests").rglob("test_*.py")))
    assert len(row) == 4
    assert names(row[3]) or row[3] == "-"
    for name in names(row[3]):
        assert f"def {name}(" in tests
