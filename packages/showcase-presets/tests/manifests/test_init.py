"""What ``celery-showcase init`` writes, and that it overwrites nothing."""

from __future__ import annotations

import re
import stat

import pytest
from click.testing import CliRunner

from celery_showcase_presets.cli import showcase
from celery_showcase_presets.errors import FilesInTheWay
from celery_showcase_presets.scaffold import SECRET_FILES, Choices, write
from celery_toolkit_core.errors import InvalidParameter


def passwords(folder):
    return set(re.findall(r"[\w-]{32}", "".join((folder / place).read_text() for place in SECRET_FILES)))


def test_passwords_are_made_for_each_folder_are_its_owners_alone_and_nowhere_else(tmp_path):
    for name in ("a", "b"):
        written = write(tmp_path / name, Choices())
        assert set(SECRET_FILES) <= set(written)
    a, b = passwords(tmp_path / "a"), passwords(tmp_path / "b")
    assert len(a) == len(b) == 3
    assert not a & b
    for path in filter(lambda path: path.is_file(), (tmp_path / "a").rglob("*")):
        place = path.relative_to(tmp_path / "a").as_posix()
        secret = place in SECRET_FILES
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == (0 if secret else 0o044)
        assert secret or not any(password in path.read_text() for password in a), place
    assert (tmp_path / "a/.gitignore").read_text().splitlines() == [f"/{place}" for place in SECRET_FILES]


def test_nothing_is_left_to_fill_in(made):
    for path in filter(lambda path: path.is_file(), made.rglob("*")):
        assert not re.search(r"@[a-z]+_?[a-z]*@", path.read_text().replace("@redis:", ":")), path


def test_a_second_init_changes_nothing_and_force_keeps_the_passwords(tmp_path):
    write(tmp_path, Choices())
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FilesInTheWay, match="--force"):
        write(tmp_path, Choices(app="other.apps"))
    assert (tmp_path / "README.md").read_text() == "mine"
    write(tmp_path, Choices(app="other.apps"), force=True)
    after = {path: path.read_text() for path in before}
    changed = {path.relative_to(tmp_path).as_posix() for path in before if before[path] != after[path]}
    assert changed >= {"README.md", "compose/compose.yaml", "helm/values.yaml"}
    assert not changed & set(SECRET_FILES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("app", "shop.apps; rm -rf /"),
        ("image", "a b"),
        ("name", "Shop"),
        ("broker", "kafka"),
        ("workdir", "here"),
        ("longest_task", -1.0),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name(name, value):
    with pytest.raises(InvalidParameter, match=name):
        Choices(**{name: value})


def test_the_command_says_what_it_wrote_and_refuses_in_one_line(tmp_path):
    done = CliRunner().invoke(showcase, ["init", str(tmp_path / "x"), "--app", "shop.apps"])
    assert done.exit_code == 0
    assert f"{tmp_path / 'x/compose/.env'}  (has passwords)" in done.output
    again = CliRunner().invoke(showcase, ["init", str(tmp_path / "x")])
    assert again.exit_code == 1
    assert len(again.output.strip().splitlines()) == 1
    assert "--force" in again.output


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(showcase, ["init", str(tmp_path / "file/x")])
    assert done.exit_code == 1
    assert len(done.output.strip().splitlines()) == 1
