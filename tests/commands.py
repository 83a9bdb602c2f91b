"""Commands in the documentation and in docstrings, with their placeholders filled in."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "serving" / "fleet" / "README.md",
]
SETTINGS = sorted((ROOT / "configs").glob("*.yaml"))
PROGRAMS = sorted(
    path
    for folder in ("caption_gan", "serving", "tools")
    for path in (ROOT / folder).glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text()
)

# What readers fill in, in synopses of docstrings.
PLACEHOLDERS = {
    "RUN": "runs/NAME",
    "RUN_OR_LOGS": "runs/NAME",
    "RUN_FIGURES": "runs/charts",
    "RUN_SCENES": "runs/scenes",
    "IMAGE": "photo.jpg",
    "OBJECTIVE": "wgan_gp",
    "PART": "figures",
    "PHASE": "generator_update",
    "HOST:PORT": "localhost:8500",
    "configs/X.yaml": "configs/scenes.yaml",
    "X.yaml": "configs/scenes.yaml",
    "--config=C": "--config=configs/scenes.yaml",
    "--any.setting": "--seed",
    "value": "1",
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# With an argument; without one, a sentence only mentions the program.
_INLINE = re.compile(r"`((?:python (?:-m )?(?!-m)|pip |kubectl |\.ci/)[^\s`]+ [^`]+)`")
_COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
_IN_SCRIPT = re.compile(r"\bpython -m [^'\n]+")


@dataclass(frozen=True)
class Command:
    """A command as it stands in a file.

    Attributes:
        place: The file, relative to the root of the project.
        words: The program and its arguments.
    """

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def commands_of(path: Path) -> list[Command]:
    """Returns the commands in a page, a file of settings or a program's docstring."""
    place = str(path.relative_to(ROOT))
    return [Command(place, tuple(words)) for words in _words_of(path) if words]


def _words_of(path: Path) -> Iterator[list[str]]:
    text = path.read_text()
    if path.suffix == ".md":
        for language, block in BLOCK.findall(text):
            if (not language and block.startswith("#!")) or language == "yaml":
                yield from (code.split() for code in _IN_SCRIPT.findall(block))
            elif not language and _is_shell(block):
                yield from _shell(block)
        for code in _INLINE.findall(BLOCK.sub("", text)):
            yield from _shell(" ".join(code.split()))
    elif path.suffix == ".yaml":
        comments = re.sub(r"^# ?", "", text.partition("\n\n")[0], flags=re.MULTILINE)
        for code in re.findall(r"^python (?:.*\\\n)*.*$", comments, re.MULTILINE):
            yield from _shell(code)
    else:
        for code in re.findall(r"`(python [^`]+)`", ast.get_docstring(ast.parse(text)) or ""):
            # A synopsis: [--n 5] is optional, IMAGE... may be repeated.
            words = re.sub(r"\[\.\.\.\]|\.\.\.|[\[\]]", "", code).split()
            yield [PLACEHOLDERS.get(word, word) for word in words]


def _is_shell(block: str) -> bool:
    """Whether a block without a language holds commands rather than output or data."""
    first = block.split(maxsplit=1)[0]
    return first.startswith(("python", "pip", "curl", "docker", "kubectl", "export"))


def _shell(block: str) -> Iterator[list[str]]:
    """Yields the words of each command in a block of a shell."""
    for line in _COMMENT.sub("", block.replace("\\\n", " ")).splitlines():
        words: list[str] = []
        for word in [*shlex.split(line), "&&"]:
            if word != "&&":
                words.append(word)
            else:
                yield words
                words = []
