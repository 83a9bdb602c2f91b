"""Pages for people to look at, made from the templates beside this file."""

from pathlib import Path

import jinja2


def new_environment() -> jinja2.Environment:
    """Templates in which text is escaped and a missing value is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
