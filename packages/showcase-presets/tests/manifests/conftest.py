"""What ``init`` writes, and a renderer for the part of Helm's template language that our chart keeps to."""

from __future__ import annotations

import re

import pytest
import yaml

from celery_showcase_presets.scaffold import Choices, write


class Chart:
    """Renders the templates of a chart folder.

    It knows ``range`` over a map, ``if``/``else``, ``not``, ``eq``, ``add``, ``quote``, ``toYaml``, ``nindent``,
    ``.Files.Get``, variables and paths, and refuses all else: a template that needs more fails the tests. This proves
    what the templates say; that Helm reads them alike follows from how little they use.
    """

    def __init__(self, folder):
        self._folder = folder
        self.values = yaml.safe_load((folder / "values.yaml").read_text())

    def documents(self, **values):
        """All manifests of the release ``rel``, with these values over the chart's own."""
        root = {"Release": {"Name": "rel"}, "Values": _merged(self.values, values), "Files": self._folder}
        found = []
        for path in sorted((self._folder / "templates").iterdir()):
            pieces = self._pieces(path.read_text())
            text, rest = self._block(pieces, {"$": root, ".": root})
            assert not rest, f"{path.name}: an end too many"
            found += [document for document in yaml.safe_load_all(text) if document]
        return found

    def _pieces(self, text):
        """Text and tags in turns, with the white space that ``{{-`` and ``-}}`` eat gone."""
        pieces = []
        for piece in re.split(r"(\{\{.*?\}\})", text, flags=re.DOTALL):
            if not piece.startswith("{{"):
                pieces.append(piece)
                continue
            if piece.startswith("{{-"):
                pieces[-1] = pieces[-1].rstrip()
            pieces.append(("eat" if piece.endswith("-}}") else "", piece.strip("{}").strip("-").strip()))
        for number, piece in enumerate(pieces):
            if isinstance(piece, tuple) and piece[0]:
                pieces[number + 1] = pieces[number + 1].lstrip()
        return pieces

    def _block(self, pieces, scope, live=True):
        """Render up to the ``end`` or ``else`` of this block: the text, and what is left from there on."""
        text = ""
        while pieces:
            piece, *pieces = pieces
            if isinstance(piece, str):
                text += piece if live else ""
                continue
            word, _, rest = piece[1].partition(" ")
            if word in ("end", "else"):
                return text, [piece, *pieces]
            if word == "if":
                wanted = live and bool(self._value(rest, scope))
                inside, pieces = self._block(pieces, scope, wanted)
                if pieces[0][1] == "else":
                    other, pieces = self._block(pieces[1:], scope, live and not wanted)
                    inside += other
                text, pieces = text + inside, pieces[1:]
            elif word == "range":
                names, _, over = rest.partition(" := ")
                key, value = names.split(", ")
                start = pieces
                # Once without effect, to find the end also of a map that has nothing.
                _, pieces = self._block(start, scope, False)
                for each, entry in sorted(self._value(over, scope).items()) if live else ():
                    text += self._block(start, {**scope, key: each, value: entry})[0]
                pieces = pieces[1:]
            elif live:
                text += str(self._value(piece[1], scope))
        return text, []

    def _value(self, expression, scope):
        first, *pipes = expression.split(" | ")
        value = self._call(first.split(" "), scope)
        for pipe in pipes:
            name, *arguments = pipe.split(" ")
            if name == "quote":
                value = yaml.safe_dump(str(value), default_style='"', width=10**6).strip()
            elif name == "toYaml":
                value = yaml.safe_dump(value, sort_keys=True).strip()
            elif name == "nindent":
                pad = "\n" + " " * int(arguments[0])
                value = pad + value.replace("\n", pad)
            else:
                raise AssertionError(f"the renderer does not know {name}")
        return value

    def _call(self, words, scope):
        head, *rest = words
        if head == "not":
            return not self._call(rest, scope)
        if head == "eq":
            return self._call(rest[:1], scope) == self._call(rest[1:], scope)
        if head == "add":
            return sum(int(self._call([word], scope)) for word in rest)
        if head == ".Files.Get":
            return (self._folder / rest[0].strip('"')).read_text()
        assert not rest, f"the renderer does not know {head}"
        if re.fullmatch(r'"[^"]*"|\d+', head):
            return head.strip('"')
        return self._path(head, scope)

    @staticmethod
    def _path(path, scope):
        start, *names = path.split(".")
        value = scope[start or "."]
        for name in names:
            # As in Helm with --strict: what is not there is a mistake.
            value = value[name]
        return value


def _merged(base, over):
    return {**base, **{key: _merged(base[key], v) if isinstance(v, dict) else v for key, v in over.items()}}


@pytest.fixture(params=["redis", "rabbitmq"])
def made(request, tmp_path):
    """A folder that ``init`` has filled, once for each broker."""
    write(tmp_path / "made", Choices(app="shop.apps", image="shop:1", broker=request.param))
    return tmp_path / "made"


@pytest.fixture
def documents(made):
    """A function that renders the chart; all four pools are on."""
    chart = Chart(made / "helm")
    pools = {name: {"enabled": True} for name in ("io", "cpu", "ram", "custom")}
    return lambda **values: chart.documents(**{"pools": pools, **values})
