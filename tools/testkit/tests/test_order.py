"""Under xdist the long tests begin first."""

from __future__ import annotations

pytest_plugins = ["pytester"]

TEST = """
import os, time
def test_it():
    with open(os.environ["ORDER"], "a") as file:
        file.write(__file__.rsplit(os.sep, 2)[-2] + " ")
"""


def test_tiers_run_from_the_longest_to_the_shortest(pytester, monkeypatch):
    order = pytester.path / "order"
    monkeypatch.setenv("ORDER", str(order))
    for folder in ("a/unit", "b/redis", "c/worker", "d/tests-integration"):
        (pytester.path / folder).mkdir(parents=True)
        (pytester.path / folder / "test_it.py").write_text(TEST)
    result = pytester.runpytest_subprocess("-n", "1", "--import-mode=importlib")
    result.assert_outcomes(passed=4)
    assert order.read_text().split() == ["tests-integration", "worker", "redis", "unit"]
