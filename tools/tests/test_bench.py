"""The bench's own instruments: what they count and what they mark."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from celery_toolkit_core.connection import connect
from celery_toolkit_testkit import TcpProxy

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    yield importlib.import_module("measure")
    sys.modules.pop("measure")


def test_round_trips_are_those_of_the_call_alone(measure, redis_url):
    with TcpProxy(redis_url) as proxy:
        client = connect(proxy.url)

        def both(number):
            client.set(f"k{number}", "v")
            client.get(f"k{number}")

        def at_once(number):
            pipeline = client.pipeline(transaction=False)
            pipeline.set(f"k{number}", "v").get(f"k{number}").execute()

        script = client.register_script("return 1")
        calls = {"both": both, "at once": at_once, "script": lambda number: script()}
        counted = {
            name: measure.round_trips(proxy, measure.Operation(name, call, before=lambda number: client.ping()))
            for name, call in calls.items()
        }
    assert counted == {"both": 2, "at once": 1, "script": 1}


def test_a_missed_target_is_marked(measure):
    assert measure.judged(1.2, 1.4) == ("1.20", "<= 1.40")
    assert measure.judged(1.5, 1.4) == ("**1.50** (missed)", "<= 1.40")


def test_a_table_is_markdown_with_its_note(measure):
    table = measure.Table("title", ["a", "b"], "a note")
    table.add("1", "2")
    assert str(table) == "### title\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\na note"


def test_a_chart_is_a_table_or_a_picture_that_says_what_was_not_measured(measure, tmp_path):
    chart = measure.Chart("place", "Places", "tasks", {"celery-toolkit-x": 3.0, "other <x>": 2010, "gone": None})
    assert "| gone | not measured |" in str(chart)
    assert chart.drawn(tmp_path).splitlines()[2].endswith("(comparison-place.svg)")
    drawn = ElementTree.parse(tmp_path / "comparison-place.svg").getroot()
    bars = [bar for bar in drawn.iter("{http://www.w3.org/2000/svg}rect") if bar.get("class") != "ground"]
    assert [(bar.get("class"), float(bar.get("width"))) for bar in bars] == [("own", 2.0), ("other", 300.0)]
    assert "other <x>" in [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]


def test_a_table_may_have_a_picture_of_some_of_its_columns(measure, tmp_path):
    columns = ["workers", "ratio", "target", "theirs"]
    table = measure.Table("t", columns, picture=("growth", "x"), bars={"ratio": "toolkit", "theirs": "other 1.0"})
    table.add("3", "**1.50** (missed)", "<= 1.40", "2,010.5")
    table.add("1,000", "1.2", "<= 1.40", "not measured")
    shown = table.drawn(tmp_path)
    assert shown.startswith(f"{table}\n\n![t. 3 workers, toolkit: 1.5; 3 workers, other 1.0: 2,010; 1,000 workers, to")
    assert shown.endswith("(comparison-growth.svg)")
    assert "not measured" in (tmp_path / "comparison-growth.svg").read_text()


def test_ratios_and_spans_compare_what_they_are_given(measure):
    def work(times):
        return sum(range(times))

    found = measure.ratios(lambda _: work(2_000), [measure.Operation("ten", lambda _: work(20_000))], rounds=30)
    assert found["ten"] > 2
    spans = measure.side_by_side({"one": lambda: work(2_000), "ten": lambda: work(20_000)}, rounds=30)
    assert spans["ten"] > 2 * spans["one"]
    assert 60 < measure.kibibytes(lambda: bytearray(64 * 1024)) < 70


def test_the_runner_names_what_it_does_not_know():
    done = subprocess.run([sys.executable, BENCH / "run.py", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no bench for nothing; there are" in done.stderr
