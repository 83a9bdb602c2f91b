"""The report of a run: it is self-contained, complete and safe to open."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from caption_gan.data.example import CaptionedImage, Example
from caption_gan.reporting.pictures import png
from caption_gan.reporting.report import StageSamples, best_and_worst, write_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
ORDINALS = ("first", "second", "third")
METRICS = {
    "val/greedy/CIDEr": 0.512,
    "val/greedy/BLEU-4": 0.187,
    "val/greedy/fact_accuracy": 0.9725,
    "val/greedy/some_new_metric": 7.25,
    "val/sample/mBLEU-4": 0.333,
    "val/sample/vocabulary": 1234,
    "val/sample/distinct_captions": 0.814,
    "val/reference/distinct_captions": 0.999,
    "val/blind/fact_accuracy": 0.0111,
    "val/nearest/fact_accuracy": 0.3141,
    "odd key": 0.777,
}
HISTORY = {
    "maximum_likelihood": [
        {"epoch": 1, "loss": 3.0, "val_loss": 2.9, "val_CIDEr": 0.2, "seconds": 9.0},
        {"epoch": 2, "loss": 2.0, "val_loss": 2.1, "val_CIDEr": 0.4, "seconds": 9.0},
    ],
    "wgan_gp": [{"epoch": 1, "critic_loss": -1.5, "val_loss": float("nan"), "val_CIDEr": 0.5}],
}


class Page(HTMLParser):
    """Parses the elements and the text of a page; fails on unclosed elements."""

    void = frozenset(["img", "meta", "br", "link"])

    def __init__(self, path: Path):
        super().__init__()
        self.raw = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.raw)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def section(self, identifier: str) -> str:
        """HTML of the section whose heading has the id; empty if there is none."""
        found = re.search(rf'<h2 id="{identifier}">.*?</section>', self.raw, re.DOTALL)
        return found[0] if found else ""


def captioned_image(number: int, **changes: Any) -> CaptionedImage:
    caption = changes.pop("caption", f"caption number {number} .")
    tokens = caption.split()
    example = Example(
        changes.pop("image_id", f"image-{number}"),
        changes.pop("image", png(Image.new("RGB", (24, 16), (number * 9 % 256, 90, 160)))),
        changes.pop("references", tuple(f"{which} of {number}" for which in ORDINALS)),
    )
    values: dict[str, Any] = {
        "captions": {"greedy": [(caption, -0.25)], "sample": [(f"sampled {number}", -1.125)]},
        "cider": number / 10,
        "tokens": tokens,
        "attention": np.ones((len(tokens), 3, 3), np.float32),
    }
    return CaptionedImage(example, **(values | changes))


def write(path: Path, **changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": "A run",
        "command": "python -m caption_gan.fit",
        "settings": "seed: 1\n",
        "metrics": METRICS,
        "history": HISTORY,
        "images": [captioned_image(number) for number in range(14)],
        "notes": ["3 images were left out."],
    }
    write_report(path / "report.html", **(values | changes))
    assert [file.name for file in path.iterdir()] == ["report.html"]
    return Page(path / "report.html")


def captions_of(section: str) -> list[str]:
    found = re.findall(r'<p class="generated">(.*?)</p>', section, re.DOTALL)
    return [html.unescape(re.sub("<.*?>", "", caption)).strip() for caption in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(tmp_path_factory.mktemp("run"))


def test_page_is_self_contained(page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r'"data:.*?"', "", page.raw))
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {value for _, attributes in page.elements if (value := attributes.get("href"))}
    assert {target.removeprefix("#") for target in targets} <= set(identifiers)


def test_all_metrics_are_in_the_table(page: Page) -> None:
    scores = page.section("scores")
    for key in METRICS:
        for part in key.split("/")[1:] or [key]:
            assert f">{part}<" in scores or f">{part} <" in scores
    for value in ("0.512", "0.187", "0.973", "7.250", "0.333", "1,234", "0.814", "0.777", "0.011"):
        assert f">{value}<" in scores
    # One column per decoding: greedy, sample, reference, nearest, blind.
    (row,) = re.findall(r"<tr><th[^>]*>fact_accuracy.*?</tr>", scores, re.DOTALL)
    assert re.findall(r"<td.*?>(.*?)</td>", row) == ["0.973", NONE, NONE, "0.314", "0.011"]


def test_headlines_show_the_values_of_other_decodings(page: Page) -> None:
    head = page.raw[: page.raw.index('<h2 id="scores">')]
    text = " ".join(re.sub("<.*?>", " ", head[head.index("<dl") :]).split())
    assert "correct captions 0.973 greedy nearest 0.314 · blind 0.011" in text
    assert "distinct captions 0.814 sample reference 0.999" in text


def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script> & <img src=x onerror=y>'
    image = captioned_image(
        1,
        image_id=f'"{evil}',
        caption=evil,
        references=(evil,),
        captions={"greedy": [(evil, -1.0)], evil: [(evil, -2.0)]},
    )
    page = write(
        tmp_path,
        title=evil,
        command=evil,
        settings=evil,
        notes=[evil],
        images=[image],
        metrics={f"val/{evil}/{evil}": 0.5},
        history={evil: [{"epoch": 1, evil: 0.5, f"val_{evil}": 0.25}]},
    )
    assert "<script" not in page.raw
    assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
    assert page.text.count(evil) >= 10


def test_best_captions_are_best_first_and_worst_are_worst_first(page: Page) -> None:
    best, worst = captions_of(page.section("best")), captions_of(page.section("worst"))
    assert best == [f"caption number {number} ." for number in (13, 12, 11, 10, 9)]
    assert worst == [f"caption number {number} ." for number in (0, 1, 2, 3, 4)]


def test_wrong_captions_rank_below_all_others() -> None:
    images = [captioned_image(number, is_correct=number not in (3, 13)) for number in range(14)]
    images.append(captioned_image(14, cider=float("nan")))
    best, worst = best_and_worst(images)
    assert [image.example.image_id for image in worst[:4]] == [
        "image-3",
        "image-13",
        "image-14",
        "image-0",
    ]
    assert [image.example.image_id for image in best[:2]] == ["image-12", "image-11"]


@pytest.mark.parametrize("count", range(12))
def test_no_image_is_both_best_and_worst(count: int) -> None:
    best, worst = best_and_worst([captioned_image(number) for number in range(count)])
    identifiers = [image.example.image_id for image in [*best, *worst]]
    assert len(set(identifiers)) == len(identifiers) == min(count, 10)
    assert 0 <= len(best) - len(worst) <= 1


def test_article_shows_captions_references_scores_and_attention(page: Page) -> None:
    article = page.section("best").split("</article>")[0]
    for text in (
        "first of 13",
        "third of 13",
        "sampled 13",
        f"{MINUS}1.125",
        f"{MINUS}0.250",
        "image-13",
    ):
        assert text in article
    attention = article[article.index('<ol class="attention"') :]
    assert re.findall(r"<bdi>(.*?)</bdi>", attention) == ["caption", "number", "13", "."]
    assert attention.count("<img") == 4


def test_captions_without_facts_are_not_marked(tmp_path: Path) -> None:
    images = [
        captioned_image(0, is_correct=True),
        captioned_image(1, is_correct=False),
        captioned_image(2),
    ]
    gallery = write(tmp_path, images=images).section("gallery")
    assert gallery.count("✓ correct") == gallery.count("✗ wrong") == 1


def test_gallery_is_evenly_spaced(tmp_path: Path) -> None:
    images = [captioned_image(number) for number in range(21)]
    gallery = write(tmp_path, images=images, gallery_images=5).section("gallery")
    assert captions_of(gallery) == [f"caption number {number} ." for number in (0, 5, 10, 15, 20)]
    assert "second of 5" in gallery
    assert "third of 5" not in gallery


def test_frequent_captions_are_counted(tmp_path: Path) -> None:
    images = [captioned_image(number, caption="a dog" if number % 4 else "") for number in range(8)]
    captions = write(tmp_path, images=images).section("captions")
    cells = re.findall(r"<td.*?>(.*?)</td>", captions, re.DOTALL)
    assert [re.sub("<.*?>", "", cell) for cell in cells] == ["a dog", "6", "(empty caption)", "2"]
    assert "generated, 1.5 words" in captions
    assert "references, 3.0 words" in captions


def test_curves_join_the_stages(page: Page) -> None:
    curves = page.section("curves")
    names = re.findall(r"<figcaption><strong>(.*?)</strong>", curves)
    assert names == ["loss", "CIDEr", "critic_loss"]
    assert curves.count("<svg") == 3
    assert "maximum_likelihood: epochs 1 to 2, 18 seconds; wgan_gp: epoch 3." in curves
    assert "2.100" in curves  # The last loss that is a number.


def test_parameters_are_listed_by_stage_and_network(tmp_path):
    parameters = {"0-maximum_likelihood": {"encoder": (1234, 567), "generator": (89, 0)}}
    section = write(tmp_path, parameters=parameters).section("curves")
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td>.*?>([\d,]+)<.*?>([\d,]+)<", section)
    assert rows == [
        ("0-maximum_likelihood", "encoder", "1,234", "567"),
        ("", "generator", "89", "0"),
    ]


def test_curves_within_epochs_replace_those_of_epochs(tmp_path: Path) -> None:
    steps = {
        "wgan_gp": [
            {"epoch": 0.5, "margin": 1.0},
            {"epoch": 1.0, "critic_loss": -1.0, "margin": 0.75},
        ]
    }
    history = HISTORY | {"wgan_gp": [{"epoch": 1, "margin": 0.8, "val_CIDEr": 0.5, "seconds": 7.4}]}
    curves = write(tmp_path, history=history, step_curves=steps).section("curves")
    names = re.findall(r"<figcaption><strong>(.*?)</strong>", curves)
    assert names == ["loss", "margin", "CIDEr"]
    (margin,) = re.findall(r"<strong>margin</strong>.*?</figure>", curves, re.DOTALL)
    assert '<span class="last first">0.750</span>' in margin
    assert "maximum_likelihood: epochs 1 to 2, 18 seconds; wgan_gp: epoch 3, 7 seconds" in curves
    assert "how much the critic scores real captions above" in " ".join(curves.split())


def test_samples_of_the_stages_are_side_by_side(tmp_path: Path) -> None:
    samples = [
        StageSamples(
            captioned_image(number, is_correct=True),
            {"0-maximum_likelihood": [("a <b> dog", False)], "1-wgan_gp": [("a cat", True)]},
        )
        for number in range(3)
    ]
    images = [captioned_image(number, is_correct=True) for number in range(3)]
    section = write(tmp_path, images=images, stage_samples=samples).section("stages")
    assert re.findall("<h4>(.*?)</h4>", section) == ["0-maximum_likelihood", "1-wgan_gp"] * 3
    items = re.findall(r"<li.*?</li>", section)
    assert items[:2] == [
        '<li class="wrong">✗ <bdi>a &lt;b&gt; dog</bdi></li>',
        "<li><bdi>a cat</bdi></li>",
    ]
    assert section.count('alt="Image image-') == 3
    assert "A cross marks captions that are not entirely correct" in section


def test_frontier_of_both_stages_and_the_choice(tmp_path: Path) -> None:
    def curve(axis: str) -> list[dict[str, float]]:
        return [
            {axis: 0.5, "CIDEr": 0.4, "mBLEU-4": 0.6},
            {axis: 1.0, "CIDEr": 0.2, "mBLEU-4": 0.1},
        ]

    names = ["1-wgan_gp", "0-maximum_likelihood"]
    frontier = {name: curve("temperature") for name in names}
    frontier |= {f"{name}, top-p": curve("top_p") for name in names}
    frontier["critic's choice"] = [
        {"drawn": 5, "CIDEr": 0.2, "mBLEU-4": 0.1},
        {"drawn": 10, "CIDEr": 0.3, "mBLEU-4": 0.1, "unchosen_mean_length": 9.25},
    ]
    section = html.unescape(write(tmp_path, frontier=frontier).section("frontier"))
    (plot,) = re.findall("<svg.*?</svg>", section, re.DOTALL)
    for name in frontier:
        assert f">{name}<" in plot
        assert f"<h3>{name}</h3>" in section
    # A value that only the second point has.
    assert re.findall(r">([^<>]*)</td></tr>", section)[-2:] == [NONE, "9.250"]


@pytest.mark.parametrize(
    "changes",
    [
        {"history": {}},
        {"history": {"stage": []}},
        {"history": {"stage": [{"epoch": 1, "loss": 2.0}]}},
        {"metrics": {}},
        {"metrics": {"val/greedy/CIDEr": float("nan")}},
        {"images": []},
        {"images": [captioned_image(0)]},
        {"images": [captioned_image(0, captions={"greedy": [("a", -1.0)], "sample": []})]},
        {"images": [captioned_image(0, captions={})]},
        {"images": [captioned_image(0, caption="", references=())]},
        {"images": [captioned_image(0, image=b"features, no image")]},
        {"images": [captioned_image(0, image=png(Image.new("RGB", (3000, 20))))]},
        {"images": [captioned_image(0, caption="half a pair \ud800 .")]},
        {"images": [captioned_image(0), captioned_image(0)]},
        {"notes": []},
    ],
)
def test_missing_and_unusual_data_are_accepted(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert "A run" in write(tmp_path, **changes).text


def test_same_run_gives_the_same_bytes(page: Page, tmp_path: Path) -> None:
    assert write(tmp_path).raw == page.raw


def test_failure_keeps_the_previous_report(tmp_path: Path) -> None:
    previous = write(tmp_path).raw
    with pytest.raises(ValueError):
        write(tmp_path, images=[captioned_image(0, attention=np.ones((9, 2, 2)))])
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == previous


def test_intervals_and_metrics_that_did_not_run_are_shown(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        intervals={"val/greedy/CIDEr": (0.4912, 0.5361)},
        not_run={"val/greedy/METEOR": "no java", "val/sample/METEOR": "no java"},
    )
    scores = page.section("scores")
    assert re.search(r"0\.512\s*<span class=\"interval\">0\.491 … 0\.536", scores)
    assert scores.count("METEOR not run: no java") == 1


def test_signs_of_collapse_come_first(tmp_path: Path) -> None:
    page = write(tmp_path, collapsed=["greedy: image_dependence is 0.000, less than 0.3"])
    assert page.raw.index("Signs of collapse") < page.raw.index('headlines">')
    assert "Signs of collapse" not in write(tmp_path).raw


@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")
def test_page_in_a_browser(tmp_path: Path) -> None:
    """The browser decodes and lays out all images, finds all sections and fetches nothing."""
    images = [captioned_image(number) for number in range(12)]
    write(tmp_path, images=images)
    probe = """<script>
    addEventListener("load", () => {
      const images = [...document.images];
      document.title = JSON.stringify({
        images: images.length,
        decoded: images.filter(image => image.naturalWidth > 0 && image.width > 0).length,
        drawings: [...document.querySelectorAll("svg")]
          .filter(drawing => drawing.getBoundingClientRect().height > 20).length,
        wide: document.documentElement.scrollWidth > innerWidth,
        fetched: performance.getEntriesByType("resource")
          .filter(entry => !entry.name.startsWith("data:")).length,
        links: [...document.querySelectorAll("nav a")]
          .filter(link => !document.querySelector(link.getAttribute("href"))).length,
      });
    });
    </script>"""
    path = tmp_path / "report.html"
    path.write_text(path.read_text().replace("</body>", probe + "</body>"))
    done = subprocess.run(
        [
            str(BROWSER),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900"),
            *("--virtual-time-budget=10000", "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    found = json.loads(html.unescape(title[1]))
    assert found["images"] == found["decoded"] > 24
    assert found["drawings"] >= 4
    assert (found["wide"], found["fetched"], found["links"]) == (False, 0, 0)


def test_notes_on_metrics_stand_beside_them(tmp_path: Path) -> None:
    page = write(tmp_path, metric_notes=["CIDEr is 0 by definition for a single image"])
    assert "CIDEr is 0 by definition for a single image." in page.section("scores")
