from __future__ import annotations

import io

import pytest

from celery_showcase_presets.tour import pictures
from celery_showcase_presets.tour.plan import Plan
from celery_showcase_presets.tour.report import Told, page, write
from celery_showcase_presets.tour.screen import Rich, screen
from celery_showcase_presets.tour.trace import Run, Trace, record
from celery_toolkit_core.errors import InvalidParameter

RUNS = [
    Run("1", "t.a", "<b>ann</b>", "heavy", 7, 10.0, 11.0),
    Run("2", "t.b", "bob", "heavy", 8, 10.5, None),
    Run("3", "t.b", "bob", "light", 9, 11.0, 12.0),
]


def test_a_gantt_has_a_lane_for_each_process_and_a_bar_for_each_run():
    html = pictures.gantt(RUNS, {"1": 9.0}, "who")
    assert html.count('class="lane"') == 3
    assert html.count("<i class=") == 3 + 2  # and two clients in the legend
    assert html.count(">heavy<") == 1
    # Sent at 9, run from 10 to 11, all in all until 12.
    assert 'left:33.33%;width:33.33%" title="&lt;b&gt;ann&lt;/b&gt;: t.a, waited 1.00 s, ran 1.00 s"' in html


def test_foreign_text_is_escaped():
    told = Told(1, "<t>", "<p>", 1.0, ["<k>"], [pictures.gantt(RUNS, {}, "<c>")], [("<f>", "<m>")], broken="<x>")
    html = page([told], "<server>", 1.0)
    for text in ("<t>", "<k>", "<c>", "<x>", "<f>", "<m>", "<server>", "<b>ann"):
        assert text not in html


def test_a_broken_promise_is_told_in_the_head():
    assert "A promise was broken" in page([Told(1, "t", "p", 1.0, [], [], broken="no")], "s", 1.0)
    assert "1 promises, all kept" in page([Told(1, "t", "p", 1.0, ["yes"], [])], "s", 1.0)


def test_the_page_replaces_an_older_one_and_keeps_its_folder_out_of_version_control(tmp_path):
    for _ in range(2):
        path = write(tmp_path / "a" / "b", [Told(1, "t", "p", 1.0, ["yes"], [])], "s", 1.0)
    assert {each.name for each in path.parent.iterdir()} == {"report.html", ".gitignore"}


def test_the_window_counts_what_lies_inside_at_each_moment():
    assert max(count for _, count in pictures.in_window([0.0, 0.5, 0.9], 1.0)) == 3
    assert max(count for _, count in pictures.in_window([0.0, 1.0, 2.0], 1.0)) == 1


def test_nothing_that_started_is_no_window():
    assert pictures.most_in_window([], 1.0) == 0


def test_a_ring_shows_each_worker_and_each_key_where_it_belongs():
    half = 2**63
    before = {"a": [half], "b": [2**64 - 1]}
    html = pictures.rings({"two": (before, {"<k>": (0, "a")}), "one": ({"a": [half]}, {"<k>": (0, "a")})}, "ring")
    first, second = html.split("<svg")[1:]
    # Half of the ring each; the one that is left has it all.
    assert [first.count(f'class="w{number}"') for number in (0, 1)] == [1, 1]
    assert [second.count(f'class="w{number}"') for number in (0, 1)] == [1, 0]
    assert "&lt;k&gt;: a" in first
    assert "<k>" not in html
    # Position 0 is at the top.
    assert 'cx="0.00" cy="-58.00"' in first


@pytest.mark.parametrize(("name", "value"), [("loop", 0), ("loop", -1), ("delay", -0.1), ("delay", 61.0)])
def test_what_cannot_be_meant_is_refused_with_its_name(name, value):
    with pytest.raises(InvalidParameter, match=name):
        Plan(**{name: value})


def test_a_trace_joins_starts_and_ends_and_knows_what_still_runs(tmp_path, monkeypatch):
    path = tmp_path / "trace"
    monkeypatch.setenv("SHOWCASE_TOUR_TRACE", str(path))
    trace = Trace(path)
    assert trace.runs() == []
    for task_id in ("1", "2"):
        record("start", id=task_id, task="t", client="c", worker="w")
    record("end", id="1")
    with path.open("a") as file:
        file.write('{"what": "half a li')
    assert [(run.task_id, run.end is None) for run in trace.runs()] == [("1", False), ("2", True)]


def test_without_a_terminal_the_screen_writes_plain_lines():
    stream = io.StringIO()
    plain = screen(stream)
    plain.chapter(1, "title", "promise")
    plain.kept("kept")
    plain.broken("promise", "seen")
    with plain.moving() as show:
        show({"queue": (1, 2)})
        show({"queue": (2, 2)})
    assert stream.getvalue().splitlines() == [
        "",
        "1. title",
        "   promise",
        "   ok: kept",
        "   FAILED: promise; instead: seen",
        "   queue 1/2",
    ]


@pytest.mark.parametrize("columns", [30, 120])
def test_moving_bars_fit_into_a_narrow_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    rich = Rich(stream)
    with rich.moving() as show:
        show({"queue heavy": (9, 12)})
    lines = [line for line in stream.getvalue().splitlines() if "9/12" in line]
    assert lines
    assert all(len(line) <= columns for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_gets_colours_only_when_it_can_show_them(encoding):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    assert (type(screen(Terminal(io.BytesIO(), encoding=encoding))).__name__ == "Rich") == (encoding == "utf-8")
