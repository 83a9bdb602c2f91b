"""Lines of text files in which data sets keep their tables and lists."""

from collections.abc import Sequence

from caption_gan.storage import text_files


def read_list(path: str, expected: str, encoding: str | None) -> list[str]:
    """Reads a list: one entry per line, which may contain blanks; empty lines do not count.

    Quotation marks around an entry are not part of it.

    Args:
        path: The file.
        expected: As in `text_files.read_text`.
        encoding: As in `text_files.read_text`.

    Raises:
        CaptionGANError: As in `text_files.read_text`.
    """
    text = text_files.read_text(path, expected, encoding)
    return [entry for line in text_files.lines(text) if (entry := line.strip(' "\t\ufeff'))]


def separator_of(header: str) -> str:
    """The character that separates the columns of a table, given its first line."""
    return max(",;\t|", key=header.count)


def unquoted_cells(line: str, columns: Sequence[str], caption: str) -> list[str] | None:
    """The cells of a line of CSV whose caption has commas but no quotation marks around it.

    Args:
        line: A line with more cells than columns, or with stray quotation marks.
        columns: Names of the columns; only `caption` may have commas.
        caption: Name of the column of captions.

    Returns:
        A cell for each column; None if quotation marks make the line ambiguous. Commas at the end
        of the caption are empty cells of a spreadsheet and left out.
    """
    parts, place = line.split(","), columns.index(caption)
    end = len(parts) - (len(columns) - place - 1)
    if end <= place:
        return None
    text, others = ",".join(parts[place:end]).rstrip(", "), parts[:place] + parts[end:]
    if text.lstrip().startswith('"') or '"' in "".join(others):
        return None
    return [*parts[:place], text, *parts[end:]]
