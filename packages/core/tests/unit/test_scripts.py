"""The text of scripts: includes stand once, in order, from any package."""

from __future__ import annotations

import sys

import pytest

from celery_toolkit_core.scripts import source


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package with the Lua files that the test writes."""
    folder = tmp_path / "lua_package_for_tests"
    (folder / "lua").mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lua_package_for_tests", raising=False)  # of the test before
    source.cache_clear()
    yield lambda name, text: (folder / "lua" / f"{name}.lua").write_text(text)
    source.cache_clear()


def test_an_include_stands_once_at_its_first_mention(package):
    include = "--@include lua_package_for_tests:"
    package("clock", "local clock = 1\n")
    package("lease", f"{include}clock\nlocal lease = clock\n")
    package("both", f"{include}lease\n{include}clock\nreturn lease\n")
    assert source("lua_package_for_tests", "both").split("\n") == [
        "local clock = 1",
        "",
        "local lease = clock",
        "",
        "",
        "return lease",
        "",
    ]


def test_includes_come_from_other_packages_too(package):
    package("now", "--@include celery_toolkit_core:clock\nreturn now_ms()\n")
    assert "local function now_ms()" in source("lua_package_for_tests", "now")


def test_files_that_include_each_other_end(package):
    package("one", "--@include lua_package_for_tests:two\n-- one\n")
    package("two", "--@include lua_package_for_tests:one\n-- two\n")
    assert source("lua_package_for_tests", "one").count("-- one") == 1


def test_a_script_that_is_not_there_is_a_mistake_of_ours(package):
    with pytest.raises(FileNotFoundError):
        source("lua_package_for_tests", "missing")
