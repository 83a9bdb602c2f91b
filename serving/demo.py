"""A page that captions what is dropped on it: `python -m serving.demo [--server HOST:PORT]`.

It asks a server, as any client does, and knows of the model what the server says. Picture ->
requests (`client`) -> HTML (`demo_html`) -> the page, which needs `pip install -e '.[demo]'`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from caption_gan import signature as names
from serving import demo_html
from serving.client import GRPC, caption_images, within
from serving.connections import Predict, connect_grpc
from serving.errors import ServingError

try:
    import gradio
except ImportError:
    sys.exit("error: the demo's page needs gradio: pip install -e '.[demo]'")

BEGIN = "Drop a picture above; it appears here with its caption."
LATER = "They follow the picture."
STYLE = Path(__file__).with_name("demo.css")
# Of sliders, whose number may be erased, which is an error to gradio.
FILL = "(...values) => values.map((value) => value ?? 1)"
FONTS = ("system-ui", "sans-serif")
SAMPLES = 5  # At first; how many there are is known from the first answer on.
# Pictures that were dropped are kept for a day, and an open page keeps its own in memory.
CACHE = (3600, 86_400)  # Seconds between looks for old ones, seconds that they are kept.
LARGEST = "64mb"


class Captioner:
    """What a server says of a picture, as parts of the page; its errors are such parts too.

    Args:
        predict: Of `connect_grpc`.
        model: Its name on the server.
        timeout: Seconds a request.
    """

    def __init__(self, predict: Predict, model: str, timeout: float):
        self._predict = predict
        self._model = model
        self._timeout = timeout

    def look(self, path: str) -> tuple[bytes | None, str, str]:
        """The picture, if it is one, the same with its caption, and the captions of a beam."""
        image = Path(path).read_bytes()
        try:
            greedy = self._ask(image, names.DEFAULT)
            attention = self._ask(image, names.ATTENTION)
            beam = self._ask(image, names.BEAM)
        except ServingError as error:
            return None, demo_html.failure(str(error)), demo_html.hint(LATER)
        written = np.flatnonzero(attention[names.TOKENS] != "")  # Without what only fills up.
        shown = demo_html.picture(
            f"gradio_api/file={quote(path)}",
            list(attention[names.TOKENS][written]),
            attention[names.WEIGHTS][written],
            greedy[names.SCORE],
        )
        return image, shown, demo_html.scored(beam[names.CAPTIONS], beam[names.SCORES])

    def sample(
        self, image: bytes | None, temperature: float, top_p: float, number: int, seed: int | None
    ) -> tuple[str, Any]:
        """Drawn captions, and the slider of their number, which ends where the server's do."""
        if image is None:
            return demo_html.hint(LATER), gradio.skip()
        sampling = {names.TEMPERATURE: temperature, names.TOP_P: top_p, names.SEED: seed or 0}
        try:
            drawn = self._ask(image, names.SAMPLE, **sampling)
        except ServingError as error:
            return demo_html.failure(str(error)), gradio.skip()
        captions, scores = drawn[names.CAPTIONS], drawn[names.SCORES]
        shown = demo_html.scored(captions[:number], scores[:number])
        return shown, gradio.Slider(maximum=len(captions), value=min(number, len(captions)))

    def _ask(self, image: bytes, signature: str, **sampling: Any) -> dict[str, Any]:
        options = (signature, self._model, self._timeout)
        (row,) = caption_images(self._predict, [image], *options, **sampling)
        if row[names.ERROR]:
            raise ServingError(f"The server says of this picture: {row[names.ERROR]}.")
        return row


def build_page(captioner: Captioner, heading: str) -> gradio.Blocks:
    """The page.

    Args:
        captioner: Who is asked.
        heading: In Markdown.
    """
    page = gradio.Blocks(title="Image captions", analytics_enabled=False, delete_cache=CACHE)
    with page:
        gradio.Markdown(heading)
        image = gradio.State()
        with gradio.Row():
            with gradio.Column():
                # Any file: what is no picture the server says, and not a box over this one.
                drop = gradio.File(label="Picture: PNG, JPEG, GIF, BMP or WebP", height=160)
                shown = gradio.HTML(demo_html.hint(BEGIN))
            with gradio.Column():
                gradio.Markdown("### Best captions of a beam search")
                beam = gradio.HTML(demo_html.hint(LATER))
                gradio.Markdown("### Captions drawn at random")
                # No buttons: their reset is no event.
                temperature = gradio.Slider(
                    *(0.1, 2, 1),
                    step=0.1,
                    label="Temperature",
                    info="Low is safe, high is varied.",
                    buttons=[],
                )
                top_p = gradio.Slider(
                    *(0.05, 1, 1),
                    step=0.05,
                    label="Top-p",
                    info="Share of likely words to draw from.",
                    buttons=[],
                )
                number = gradio.Slider(1, SAMPLES, SAMPLES, step=1, label="Number", buttons=[])
                with gradio.Row(equal_height=True):
                    seed = gradio.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                    again = gradio.Button("Draw again")
                samples = gradio.HTML(demo_html.hint(LATER))

        drawing = {
            "fn": captioner.sample,
            "inputs": [image, temperature, top_p, number, seed],
            "outputs": [samples, number],
            "show_progress": "hidden",
            "trigger_mode": "always_last",  # Of many changes while an answer is awaited.
        }
        drop.upload(captioner.look, drop, [image, shown, beam]).then(**drawing)
        # Empty again, it takes the next picture.
        drop.upload(lambda: None, outputs=drop)
        sliders = [temperature, top_p, number]
        changes = [*(slider.input for slider in sliders), seed.input]
        gradio.on(changes, None, sliders, sliders, js=FILL).then(**drawing)
        again.click(lambda seed: (seed or 0) + 1, seed, seed).then(**drawing)
    # How many requests at a time is for the server to say.
    return page.queue(default_concurrency_limit=None)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.demo", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--server", default=GRPC, help="HOST:PORT or unix:PATH, gRPC; %(default)s")
    add("--model", default="captioner", help="its name on the server; %(default)s")
    add("--timeout", type=within(1e-3, 1e6), default=10.0, help="seconds a request; %(default)g")
    add("--host", default="localhost", help="where the page is; 0.0.0.0 for all; %(default)s")
    add("--port", type=within(1, 65_535), default=7860, help="of the page; %(default)s")
    arguments = parser.parse_args()

    captioner = Captioner(connect_grpc(arguments.server), arguments.model, arguments.timeout)
    heading = (
        f"# Image captions\nWhat the model `{arguments.model}` at `{arguments.server}` says of a "
        "picture, with the mean log-probability of a word: the nearer to 0, the likelier."
    )
    page = build_page(captioner, heading)
    theme = gradio.themes.Default(primary_hue="blue", font=FONTS)
    theme.set(body_text_color_subdued="*neutral_500")  # Grey that can be read.
    try:
        # Fonts and all else come from this machine, and nothing goes to another.
        _, address, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            theme=theme,
            css_paths=STYLE,
            max_file_size=LARGEST,
            share=False,
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        sys.exit(
            f"error: {arguments.host}:{arguments.port} cannot be listened at; choose another --port"
        )
    print(f"The page is at {address}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
