"""Paths, modules, settings and links named in the documentation exist."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from caption_gan.config.renamed import RENAMED
from caption_gan.config.run import Config
from tests.commands import BLOCK, PAGES, ROOT

PATH = re.compile(r"(?<![\w/.$-])(?:caption_gan|serving|tests|tools|configs|docs)/[\w./-]*\w/?")
MODULE = re.compile(r"(?<![\w/.-])(?:caption_gan|serving|tests)(?:\.[a-z_]\w*)+")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#([^)\s]+))?\)")
SETTING = re.compile(r"--([a-z_]+\.[a-z_.]+)|`([a-z_]+\.[a-z_.]+)(?::[^`]*)?`")
OPTION = re.compile(r"(?<![\w-])--([a-z_]+)(?![\w.-])")
SOURCES = [
    path for folder in ("caption_gan", "serving", "tools") for path in (ROOT / folder).glob("*.py")
] + [ROOT / "tests" / "conftest.py", ROOT / "tests" / "serving" / "check_contract.py"]
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_paths_exist(page):
    missing = {name for name in PATH.findall(page.read_text()) if not (ROOT / name).exists()}
    # `compare_frontiers.py --plot` writes it.
    assert missing <= {"docs/results/PLOT.svg"}


@pages
def test_modules_exist(page):
    missing = set()
    for name in MODULE.findall(page.read_text()):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None and not has_attribute(name):
            missing.add(name)
    assert not missing


def has_attribute(name: str) -> bool:
    """Whether the name's last part is an attribute of a module, such as `caption_gan.load`."""
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)


@pages
def test_links_lead_somewhere(page):
    broken = set()
    for name, anchor in LINK.findall(page.read_text()):
        target = page.parent / name
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.add(f"{name}#{anchor}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(page.read_text())
    }


@pages
def test_settings_exist(page):
    sections = {field.name for field in dataclasses.fields(Config)}
    missing = set()
    for option, quoted in SETTING.findall(page.read_text()):
        name = option or quoted
        if name.partition(".")[0] in sections and not is_setting(name):
            missing.add(name)
    assert not missing


@pages
def test_options_exist(page):
    """Options that a sentence names alone; `test_commands.py` tests those in commands."""
    sources = "".join(path.read_text() for path in SOURCES)
    missing = set()
    sentences = BLOCK.sub("", page.read_text())
    for name in OPTION.findall(" ".join(re.findall(r"`[^`]+`", sentences))):
        quoted = f'"--{name}"' in sources or f'add("{name}"' in sources
        if not (quoted or is_setting(name)):
            missing.add(name)
    assert missing <= {"help", "requeue"}  # Of every program, and of `sbatch`.


def is_setting(name: str) -> bool:
    value = Config()
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def test_the_changelog_lists_renamed_settings():
    changes = (ROOT / "CHANGELOG.md").read_text()
    # A row may leave out the section, for settings of several objectives.
    rows = {
        (row[0].rpartition(".")[2], row[1].rpartition(".")[2])
        for row in re.findall(r"\| `([^`]*)` \| `([^`]*)` \|", changes)
    }
    renamed = {
        (former.rpartition(".")[2], present.rpartition(".")[2])
        for former, present in RENAMED.items()
    }
    assert renamed <= rows


def test_the_tree_in_architecture_is_the_tree():
    page = (ROOT / "docs" / "architecture.md").read_text()
    (tree,) = re.findall(r"## Rooms\n+```\n(.*?)```", page, re.DOTALL)
    folders: list[str] = []
    named = set()
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 4, line.split()[0]
        folders[depth:] = [name.rstrip("/")]
        named.add("/".join(folders))
        assert (ROOT / "/".join(folders)).is_dir() == name.endswith("/"), line
    there = {
        str(path.relative_to(ROOT))
        for path in [ROOT / "caption_gan", *(ROOT / "caption_gan").rglob("*")]
        if (path.is_dir() and (path / "__init__.py").exists())
        or (path.parent == ROOT / "caption_gan" and path.suffix == ".py")
    }
    assert there - named == {"caption_gan/__init__.py"}
