"""What the command lines of the programs share: a parser with one-line errors, and exit statuses.

A program exits with 0, with 1 if its work failed, or with 2 if its call or a settings file was
wrong.
"""

import difflib
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, NoReturn

import jsonargparse

from caption_gan.errors import CaptionGANError, UsageError

FAILED, WRONG_CALL = 1, 2
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# jsonargparse's messages and plainer ones.
_PLAIN = (
    (r'Parser key "([\w.]+)": ', r"\1: "),
    (
        r"Does not validate .* Not of type Address: .* Given value: (.*)",
        r"expected host and port, e.g. input-dispatcher:5050; got \1",
    ),
    (
        r"Does not validate .* Not of type StepRange: .* Given value: (.*)",
        r"expected two steps, e.g. 10,20; got \1",
    ),
    (r"Does not validate against any of the Union subtypes .*? Errors: - (.*?) - .*", r"\1"),
    (r"Not of type \w+: ", ""),
    (r"Expected a typing\.Literal\[(.*?)\]\. Got value: ", r"expected one of \1; got "),
    (r"Expected a <class 'bool'>\. Got value: ", "expected true or false; got "),
    (r"Expected a <class 'list'>\. Got value: ", "expected a list, e.g. [a,b]; got "),
    (r"invalid literal for int\(\) with base 10: ", "expected an integer; got "),
    (r"could not convert string to float: ", "expected a number; got "),
    (r"(\S+) does not conform to restriction v(.*)", r"expected a value \2; got \1"),
    (r" and v(?=[<>])", " and "),
)


class ArgumentParser(jsonargparse.ArgumentParser):
    """A parser that answers a mistake with one line and the valid choices.

    Args:
        renamed: Present name of each setting that was renamed, by its former name.
        renamed_values: Present values of settings, by the setting's present name and the former
            value.
        **kwargs: Arguments of `jsonargparse.ArgumentParser`.
    """

    def __init__(
        self,
        *args: Any,
        renamed: Mapping[str, str] | None = None,
        renamed_values: Mapping[str, Mapping[str, str]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.renamed = renamed or {}
        self.renamed_values = renamed_values or {}

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        arguments = list(sys.argv[1:] if args is None else args)
        # Checked first: argparse would take a former name that begins a present one.
        for argument, following in zip_longest(arguments, arguments[1:]):
            name, _, value = argument.partition("=")
            name = name.removeprefix("--")
            if argument.startswith("--") and name in self.renamed:
                self.error(f"unrecognized arguments: --{name}")
            if argument.startswith("--") and name == "config":
                self._check_encoding(value or following)
        return super().parse_args(args, *rest, **kwargs)

    def _check_encoding(self, path: str | None) -> None:
        """Ends the program if a file of settings is not in UTF-8, as jsonargparse reads it."""
        if path is None or not os.path.isfile(path):
            return
        # Imported here because it takes seconds, in which mistakes in the call can be answered.
        from caption_gan.storage.text_files import UTF_8, encoding_of

        try:
            encoding = encoding_of(path)
        except CaptionGANError as error:
            self.error(str(error), error)
        if encoding not in (UTF_8, "utf-8-sig"):
            self.error(f"{path} is {encoding}; save it as UTF-8")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"{self.prog}: {self.explain(message)}", file=sys.stderr)
        sys.exit(WRONG_CALL)

    def explain(self, message: str) -> str:
        """Returns a message of jsonargparse in one line, with what to type instead."""
        message = re.sub(r"\s*\n\s*", " ", message).strip()
        # The flag or the file's option that is no setting.
        unknown = re.search(r"nrecognized arguments: (?:--)?([\w.]+)", message)
        in_file = re.search(
            r"(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", message
        )
        if unknown or in_file:
            groups = (unknown or in_file).groups()  # type: ignore[union-attr]
            name = ".".join(group for group in groups if group)
            return self._renamed(name) or f"{message}.{self._suggestion(name)}"
        value = re.search(r'Parser key "([\w.]+)": .* Got value: (\S+)$', message)
        if value and (present := self.renamed_values.get(value[1], {}).get(value[2])):
            return f"{value[1]} {value[2]} is now called {present}"
        for pattern, plain in _PLAIN:
            message = re.sub(pattern, plain, message)
        return f"{message} (see --help)"

    def _renamed(self, name: str) -> str | None:
        """Returns the answer to a former name of a setting."""
        present = self.renamed.get(name)
        if present is None:
            return None
        values = self.renamed_values.get(present, {}) if name != present else {}
        pairs = ", ".join(f"{former} -> {value}" for former, value in values.items())
        return f"{name} is now called {present}" + (f" ({pairs})" if pairs else "")

    def _suggestion(self, name: str) -> str:
        """Returns the setting closest to an unknown one, and all settings of its group."""
        settings = sorted(
            option.removeprefix("--")
            for option in self._option_string_actions
            if option.startswith("--")
        )
        close = difflib.get_close_matches(name, settings, n=1)
        group = name.rpartition(".")[0]
        valid = [setting for setting in settings if setting.rpartition(".")[0] == group]
        meant = f" Did you mean {close[0]}?" if close else ""
        return f"{meant} Valid here: {', '.join(valid or settings)}."


class RaisingArgumentParser(ArgumentParser):
    """A parser for calls from Python, where a mistake must not end the process."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(self.explain(message)) from ex


def arguments_of(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The command line of nested settings: {"data": {"source": "coco"}} is --data.source=coco."""
    arguments = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            arguments += arguments_of(value, f"{prefix}{name}.")
        else:
            is_text = isinstance(value, str | os.PathLike)
            text = os.fspath(value) if is_text else json.dumps(value, default=os.fspath)
            arguments.append(f"--{prefix}{name}={text}")
    return arguments


def run_program(main: Callable[[], None]) -> NoReturn:
    """Runs a program and exits; a user's mistake is one line on standard error, no stack trace."""
    try:
        main()
    except CaptionGANError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_CALL if isinstance(error, UsageError) else FAILED)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(
            f"error: {error}. Files saved before are intact; make room for more.", file=sys.stderr
        )
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit(0)
