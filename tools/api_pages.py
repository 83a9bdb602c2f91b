"""Builds the pages of the Python API from its docstrings: `python tools/api_pages.py [FOLDER]`."""

import argparse
from pathlib import Path

import pdoc

import caption_gan
from caption_gan.storage.paths import local_path


def main() -> None:
    """Writes the pages and prints where they begin."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=local_path, default=Path("build/api"))
    folder = parser.parse_args().folder
    for name in caption_gan.__all__:
        # pdoc looks into the package's dictionary, which has a lazily imported class only now.
        setattr(caption_gan, name, getattr(caption_gan, name))
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("caption_gan", r"!caption_gan\..*", output_directory=folder)
    print(folder / "caption_gan.html")


if __name__ == "__main__":
    main()
