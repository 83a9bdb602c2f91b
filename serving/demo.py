"""A web page that captions dropped images: `python -m serving.demo [--server HOST:PORT]`.

The page is a client of a model server: image -> requests (`client`) -> HTML (`demo_html`) -> page.
It needs `pip install -e '.[demo]'`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from caption_gan import signature as names
from serving import demo_html
from serving.client import GRPC_ADDRESS, caption_images, within
from serving.connections import Predict, connect_grpc
from serving.errors import ServingError

try:
    import gradio
except ImportError:
    sys.exit("error: serving.demo needs gradio; install it with: pip install -e '.[demo]'")

NO_IMAGE = "Drop an image above. It appears here with its caption."
NO_CAPTIONS = "No captions yet."
STYLE = Path(__file__).with_name("demo.css")
# An erased number of a slider counts as 1; Gradio would report an error.
REPLACE_MISSING = "(...values) => values.map((value) => value ?? 1)"
FONTS = ("system-ui", "sans-serif")
SAMPLES = 5  # Until the first answer shows how many samples the server returns.
# Uploaded files are deleted after a day. An open page keeps its image in memory.
CACHE_SECONDS = (3600, 86_400)  # Between clean-ups, and until a file is deleted.
MAX_FILE_SIZE = "64mb"


class DemoCaptioner:
    """Captions an image with requests to a server; returns HTML, for errors too.

    Args:
        predict: What `connect_grpc` returns.
        model: Name of the model on the server.
        timeout: Seconds per request.
    """

    def __init__(self, predict: Predict, model: str, timeout: float):
        self._predict = predict
        self._model = model
        self._timeout = timeout

    def caption(self, path: str) -> tuple[bytes | None, str, str]:
        """The image (None after an error), HTML of image and caption, HTML of the beam search."""
        image = Path(path).read_bytes()
        try:
            greedy = self._predict_row(image, names.DEFAULT)
            attention = self._predict_row(image, names.ATTENTION)
            beam = self._predict_row(image, names.BEAM)
        except ServingError as error:
            return None, demo_html.error(str(error)), demo_html.hint(NO_CAPTIONS)
        is_token = attention[names.TOKENS] != ""  # False for padding.
        html = demo_html.captioned_image(
            f"gradio_api/file={quote(path)}",
            list(attention[names.TOKENS][is_token]),
            attention[names.WEIGHTS][is_token],
            greedy[names.SCORE],
        )
        return image, html, demo_html.scored_captions(beam[names.CAPTIONS], beam[names.SCORES])

    def sample(
        self, image: bytes | None, temperature: float, top_p: float, number: int, seed: int | None
    ) -> tuple[str, Any]:
        """HTML of sampled captions, and the slider for their number, up to the server's number."""
        if image is None:
            return demo_html.hint(NO_CAPTIONS), gradio.skip()
        sampling = {names.TEMPERATURE: temperature, names.TOP_P: top_p, names.SEED: seed or 0}
        try:
            row = self._predict_row(image, names.SAMPLE, **sampling)
        except ServingError as error:
            return demo_html.error(str(error)), gradio.skip()
        captions, scores = row[names.CAPTIONS], row[names.SCORES]
        html = demo_html.scored_captions(captions[:number], scores[:number])
        return html, gradio.Slider(maximum=len(captions), value=min(number, len(captions)))

    def _predict_row(self, image: bytes, signature: str, **sampling: Any) -> dict[str, Any]:
        options = (signature, self._model, self._timeout)
        (row,) = caption_images(self._predict, [image], *options, **sampling)
        if row[names.ERROR]:
            raise ServingError(f"The server cannot caption this file: {row[names.ERROR]}.")
        return row


def build_page(captioner: DemoCaptioner, heading: str) -> gradio.Blocks:
    """The page.

    Args:
        captioner: Captions the images.
        heading: Markdown at the top of the page.
    """
    page = gradio.Blocks(
        title="Image captions", analytics_enabled=False, delete_cache=CACHE_SECONDS
    )
    with page:
        gradio.Markdown(heading)
        image = gradio.State()
        with gradio.Row():
            with gradio.Column():
                # Accepts any file: the server reports what is not an image, in the page itself.
                drop = gradio.File(label="Image: PNG, JPEG, GIF, BMP or WebP", height=160)
                captioned_image = gradio.HTML(demo_html.hint(NO_IMAGE))
            with gradio.Column():
                gradio.Markdown("### Best captions of beam search")
                beam = gradio.HTML(demo_html.hint(NO_CAPTIONS))
                gradio.Markdown("### Sampled captions")
                # No buttons: resetting a slider triggers no event.
                temperature = gradio.Slider(
                    minimum=0.1,
                    maximum=2,
                    value=1,
                    step=0.1,
                    label="Temperature",
                    info="Low: likely captions. High: varied captions.",
                    buttons=[],
                )
                top_p = gradio.Slider(
                    minimum=0.05,
                    maximum=1,
                    value=1,
                    step=0.05,
                    label="Top-p",
                    info="Sample from the most likely words with this total probability.",
                    buttons=[],
                )
                number = gradio.Slider(1, SAMPLES, SAMPLES, step=1, label="Number", buttons=[])
                with gradio.Row(equal_height=True):
                    seed = gradio.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                    resample = gradio.Button("Sample again")
                samples = gradio.HTML(demo_html.hint(NO_CAPTIONS))

        sampling = {
            "fn": captioner.sample,
            "inputs": [image, temperature, top_p, number, seed],
            "outputs": [samples, number],
            "show_progress": "hidden",
            "trigger_mode": "always_last",  # Of changes during a request, only the last is sent.
        }
        drop.upload(captioner.caption, drop, [image, captioned_image, beam]).then(**sampling)
        # Cleared, the drop area accepts the next image.
        drop.upload(lambda: None, outputs=drop)
        sliders = [temperature, top_p, number]
        changes = [*(slider.input for slider in sliders), seed.input]
        gradio.on(changes, None, sliders, sliders, js=REPLACE_MISSING).then(**sampling)
        resample.click(lambda seed: (seed or 0) + 1, seed, seed).then(**sampling)
    # The server limits concurrent requests.
    return page.queue(default_concurrency_limit=None)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.demo", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add(
        "--server",
        default=GRPC_ADDRESS,
        help="HOST:PORT or unix:PATH of gRPC (default: %(default)s)",
    )
    add("--model", default="captioner", help="name on the server (default: %(default)s)")
    add(
        "--timeout",
        type=within(1e-3, 1e6),
        default=10.0,
        help="seconds per request (default: %(default)g)",
    )
    add(
        "--host",
        default="localhost",
        help="address of the page; 0.0.0.0: all (default: %(default)s)",
    )
    add(
        "--port",
        type=within(1, 65_535),
        default=7860,
        help="port of the page (default: %(default)s)",
    )
    arguments = parser.parse_args()

    captioner = DemoCaptioner(connect_grpc(arguments.server), arguments.model, arguments.timeout)
    heading = (
        f"# Image captions\nCaptions by the model `{arguments.model}` at `{arguments.server}`. "
        "Scores are mean log-probabilities per word: the nearer to 0, the more likely."
    )
    page = build_page(captioner, heading)
    theme = gradio.themes.Default(primary_hue="blue", font=FONTS)
    theme.set(body_text_color_subdued="*neutral_500")  # A grey with enough contrast.
    try:
        # The page loads nothing from other machines, not even fonts, and sends nothing to them.
        _, address, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            theme=theme,
            css_paths=STYLE,
            max_file_size=MAX_FILE_SIZE,
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
            f"error: cannot listen on {arguments.host}:{arguments.port}; choose another --port"
        )
    print(f"The page is at {address}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
