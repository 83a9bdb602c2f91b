"""HTML pages from the templates in this folder."""

import math
from pathlib import Path

import jinja2


def new_environment() -> jinja2.Environment:
    """A template environment that escapes text and raises an error on a missing value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment


def format_number(value: float | None) -> str:
    """A number with about three significant digits; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) < 1e-8:  # BLEU without a match is about 1e-14: the scorer's epsilons.
        return "0.000"
    if abs(value) >= 100 or (abs(value) >= 10 and value == round(value)):
        return f"{value:,.0f}"
    text = f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}")
