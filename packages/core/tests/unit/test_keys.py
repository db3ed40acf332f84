"""Keys: one hash tag per scope, no user text, nothing ambiguous."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import KeySpace, digest

anything = st.text(st.characters(), max_size=30)


def test_a_key_reads_prefix_scope_schema_kind():
    assert KeySpace("ranch").key("backlog") == "{ranch:main}:v1:backlog"


def test_a_colon_at_the_end_of_a_prefix_is_dropped():
    assert KeySpace("my-app:").key("lease") == KeySpace("my-app").key("lease")


@pytest.mark.parametrize("prefix", ["", ":", "a{b", "a}b", "a b", "a\nb", "a*", "é", "x" * 129, None, 5, b"ranch"])
def test_impossible_prefixes_are_refused(prefix):
    with pytest.raises(InvalidParameter) as caught:
        KeySpace(prefix)
    assert caught.value.parameter == "prefix"


@given(scope=anything, name=anything)
def test_every_key_of_a_scope_has_its_one_hash_tag(scope, name):
    space = KeySpace("x", scope)
    key = space.key("lease", name)
    # Redis hashes what stands between the first { and the first } behind it.
    assert key.startswith("{")
    assert key[: key.index("}") + 1] == space.tag
    assert key.count("{") == key.count("}") == 1
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key


@given(first=st.lists(anything, max_size=4), second=st.lists(anything, max_size=4))
def test_names_never_run_into_each_other(first, second):
    space = KeySpace("x")
    assert (space.key("lease", *first) == space.key("lease", *second)) == (first == second)


def test_digest_is_the_same_in_every_version():
    """Golden: a change here would part running processes of two versions."""
    assert digest() == "cae66941d9efbd404e4d88758ea67670"
    assert digest("a", "b") == digest("a", "b") != digest("ab") != digest("b", "a")
    assert len(digest("\ud800")) == 32
