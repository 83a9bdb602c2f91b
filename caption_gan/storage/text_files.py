"""Text files of users: decoded strictly, so that no damaged word is ever learnt.

A byte-order mark names the encoding of its file. Lines end with `\\n`, `\\r\\n` or, in old files,
`\\r`; other separators of Unicode are part of a line.
"""

import codecs
import contextlib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem
from caption_gan.storage.text_guesses import (
    likely_encoding,
    other_content,
    wide_encoding,
)

UTF_8 = "utf-8"
_WIDE = ("utf-16", "utf-32")
_LINE_END = re.compile(r"\r*\n|\r")
_CONFLICT = re.compile(r"^<{7} .{0,60}", re.MULTILINE)
_CHUNK = 1 << 20  # Bytes.
_CONTEXT = 30  # Characters that an error shows on each side.
# UTF-32 comes first: one of its marks begins with a mark of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: UTF_8,
}


def read_text(path: str, expected: str, encoding: str | None = None) -> str:
    """Returns the content of a text file.

    Args:
        path: The file.
        expected: The expected content, for the error message.
        encoding: Encoding of files that are not UTF-8 and have no byte-order mark
            (`data.encoding`); None if no setting applies to the file.

    Raises:
        CaptionGANError: The file is missing, cannot be read, or is not text in its encoding.
    """
    with _one_line_errors(path, expected):
        content = filesystem.read_bytes(path)
    return decode(content, path, encoding)


def decode(content: bytes, path: str, encoding: str | None = None) -> str:
    """Decodes the content of a text file; see `read_text`."""
    return "".join(_decoded(path, lambda: [content], encoding))


def lines(text: str) -> list[str]:
    """The lines of a text without their ends; the last line may lack its end."""
    parts = _LINE_END.split(text)
    return parts if parts[-1] else parts[:-1]


def read_lines(path: str, expected: str, encoding: str | None = None) -> Iterator[str]:
    """Yields the lines of a text file that may be larger than memory, without their ends.

    Args:
        path: The file.
        expected: The expected content, for the error message.
        encoding: As in `read_text`.

    Raises:
        CaptionGANError: As in `read_text`.
    """
    yield from _cut(_decoded(path, lambda: _chunks(path, expected), encoding))


def check(path: str, expected: str, encoding: str | None = None) -> None:
    """Raises the errors of `read_lines`."""
    for _ in _decoded(path, lambda: _chunks(path, expected), encoding):
        pass


def _chunks(path: str, expected: str) -> Iterator[bytes]:
    with (
        _one_line_errors(path, expected),
        filesystem.as_os_errors(),
        tf.io.gfile.GFile(path, "rb") as file,
    ):
        while chunk := file.read(_CHUNK):
            yield chunk


def encoding_of(path: str, encoding: str | None = None) -> str:
    """The encoding of a text file, for libraries that read it themselves.

    Args:
        path: The file.
        encoding: As in `read_text`.

    Returns:
        A name for Python's decoders; they skip the byte-order mark if there is one.

    Raises:
        CaptionGANError: As in `read_text`.
    """
    check(path, "text", encoding)
    if marked := marked_encoding(next(_chunks(path, "text"), b"")):
        return marked
    return _unmarked_encoding(lambda: _chunks(path, "text"), encoding)


def marked_encoding(head: bytes) -> str | None:
    """Name of a decoder that skips the byte-order mark of a file; None if the file has none."""
    marked = _mark(head)
    return "utf-8-sig" if marked == UTF_8 else marked and marked[:6]


def _mark(head: bytes) -> str | None:
    """The encoding that a byte-order mark names; None without a mark."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def _cut(texts: Iterable[str]) -> Iterator[str]:
    """Yields the lines of a text that comes in pieces."""
    rest = ""
    for text in texts:
        text = rest + text
        # A carriage return at the end may be half of a line end.
        complete = text.rstrip("\r")
        *ended, rest = _LINE_END.split(complete)
        rest += text[len(complete) :]
        yield from ended
    yield from lines(rest)


def _decoded(path: str, read: Callable[[], Iterable[bytes]], encoding: str | None) -> Iterator[str]:
    """Yields the text of the chunks that `read` yields; it is called once for each pass."""
    head = next(iter(read()), b"")
    name = _mark(head)
    if name is None:
        name = _unmarked_encoding(read, encoding)
        _refuse_other_content(path, head, name, encoding)
    decoder, line = codecs.getincrementaldecoder(name)(), 1
    for number, (chunk, is_last) in enumerate(_with_last(read())):
        try:
            text = decoder.decode(chunk, is_last)
        except UnicodeDecodeError as error:
            raise _undecodable(path, error, line, name, encoding) from None
        text = text if number else text.removeprefix("\ufeff")
        if marker := _CONFLICT.search(text):
            raise CaptionGANError(
                f"{path}, line {line + _line_ends(text[: marker.start()])}: {marker[0]!r} is a "
                "conflict marker of Git; keep one of the two versions, and remove the markers."
            )
        yield text
        line += _line_ends(text)


def _line_ends(text: str) -> int:
    return text.count("\n") or text.count("\r")


def _with_last(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Pairs each chunk with whether it is the last."""
    previous = None
    for chunk in chunks:
        if previous is not None:
            yield previous, False
        previous = chunk
    yield previous or b"", True


def _unmarked_encoding(read: Callable[[], Iterable[bytes]], encoding: str | None) -> str:
    """The encoding of a file without a byte-order mark.

    `data.encoding` describes the files of the data set that are not UTF-8. A file that is mostly
    UTF-8 is never read in it, which would change words without an error.
    """
    name = codecs.lookup(encoding or UTF_8).name
    if name == UTF_8:
        return UTF_8
    is_ascii = True
    try:
        for text in codecs.iterdecode(read(), UTF_8):
            if "\0" in text:
                return name
            is_ascii &= text.isascii()
    except UnicodeDecodeError:
        texts = codecs.iterdecode(read(), UTF_8, errors="replace")
        return UTF_8 if sum(map(_decodable_surplus, texts)) > 0 else name
    # ASCII may be part of another encoding, such as ISO 2022, but UTF-16 has zero bytes.
    return name if is_ascii and not name.startswith(_WIDE) else UTF_8


def _decodable_surplus(text: str) -> int:
    """Returns the number of characters beyond ASCII, less twice the number of undecodable ones."""
    others = len(text) - len(text.encode("ascii", "ignore"))
    return others - 3 * text.count("\ufffd")


def _refuse_other_content(path: str, head: bytes, name: str, encoding: str | None) -> None:
    """Raises an error if the first bytes of a file without a mark are no text in its encoding."""
    if found := other_content(head):
        raise CaptionGANError(f"{path} is {found}.")
    wide = wide_encoding(head)
    # Without a mark, Python reads the order of this machine's bytes.
    if wide and wide != (f"{name}-le" if name in ("utf-16", "utf-32") else name):
        raise CaptionGANError(
            f"{path} has zero bytes between its characters; it is probably {wide} without a "
            f"byte-order mark: {_advice(path, wide, encoding)}."
        )


def _undecodable(
    path: str, error: UnicodeDecodeError, line: int, name: str, encoding: str | None
) -> CaptionGANError:
    """Returns an error that shows the place and says what to do."""
    content, place = error.object, error.start
    line += _line_ends(content[:place].decode(name, "replace"))
    where = f"{path}, line {line}: '{_around(content, place, name, 'backslashreplace')}'"
    likely = likely_encoding(content)
    is_mostly_right = _decodable_surplus(content.decode(name, "replace")) > 0
    is_marked = name.startswith(_WIDE)
    if is_marked or name == codecs.lookup(likely).name or is_mostly_right:
        return CaptionGANError(
            f"{where} is damaged text in {name}, which the file is otherwise; correct or remove "
            "the line, or copy the file again."
        )
    means = _around(content, place, likely, "replace")
    return CaptionGANError(
        f"{where} is not text in {name} but probably in {likely}, where it is {means!r}: "
        f"{_advice(path, likely, encoding)}."
    )


def _around(content: bytes, place: int, encoding: str, errors: str) -> str:
    """The text around a byte, within its line."""
    before, after = (part.decode(encoding, errors) for part in (content[:place], content[place:]))
    return _LINE_END.split(before)[-1][-_CONTEXT:] + _LINE_END.split(after)[0][:_CONTEXT]


def _advice(path: str, likely: str, encoding: str | None) -> str:
    if encoding is None:
        return f"save it as UTF-8, e.g. iconv -f {likely} -t UTF-8 {shlex.quote(path)}"
    return f"give --data.encoding={likely}, or save it as UTF-8"


@contextlib.contextmanager
def _one_line_errors(path: str, expected: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CaptionGANError(f"{path} is missing; expected {expected}.") from None
    except OSError as error:
        raise CaptionGANError(f"{path} cannot be read: {error}; expected {expected}.") from error
