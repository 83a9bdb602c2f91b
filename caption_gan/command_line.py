"""What the programs' command lines have in common."""

import difflib
import errno
import re
import sys
from collections.abc import Callable
from typing import NoReturn

import jsonargparse

from caption_gan.errors import CaptionGANError

FAILED, WRONG_CALL = 1, 2
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ArgumentParser(jsonargparse.ArgumentParser):
    """A parser that answers a mistake with one line and the valid choices."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = re.sub(r"\s*\n\s*", " ", message).strip()
        print(f"{self.prog}: {message}{self._suggestion(message)}", file=sys.stderr)
        sys.exit(WRONG_CALL)

    def _suggestion(self, message: str) -> str:
        """Names the settings closest to an unknown one, or all of its group."""
        settings = sorted(
            option.removeprefix("--")
            for option in self._option_string_actions
            if option.startswith("--")
        )
        unknown = re.search(r"nrecognized arguments: (?:--)?([\w.]+)", message)
        in_file = re.search(r"(?:Group '([\w.]+)' )?does not accept option '([\w.]+)'", message)
        if unknown:
            name = unknown[1]
        elif in_file:
            name = ".".join(part for part in in_file.groups() if part)
        else:
            return f" (see {self.prog} --help)"
        close = difflib.get_close_matches(name, settings, n=1)
        group = name.rpartition(".")[0]
        valid = [setting for setting in settings if setting.rpartition(".")[0] == group]
        meant = f" Did you mean {close[0]}?" if close else ""
        return f".{meant} Valid here: {', '.join(valid or settings)}."


def run_program(main: Callable[[], None]) -> NoReturn:
    """Runs a program; what the user can mend ends it with one line instead of a stack trace."""
    try:
        main()
    except CaptionGANError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f"error: {error}. What was saved before stays; make room for more.", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit(0)
