"""The page of `ganinv demo`: photos on the left, what was found and its sliders on the right.

Gradio reads the annotations of its handlers where they are defined, so that they are functions
within functions that import it, and this module has no postponed annotations.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ganinv.cli._demo_work import MOST_BYTES, MOST_PHOTOS, MOST_STEPS, Session, Studio
from ganinv.cli._methods import ENCODE
from ganinv.core.errors import USER_ERRORS, ConfigError, explain

SECONDS = 3600  # that a visitor's photos, codes and files are kept
STEP = 0.1  # of a slider
FEW = 128  # px, up to which pixels are shown as squares
CSS = """
.gradio-container {max-width: 1360px !important; margin: 0 auto !important}
.panel img {width: 100%; height: 100%; object-fit: contain}
.squares img {image-rendering: pixelated}
#photos .grid-wrap, #faces .grid-wrap {padding-top: 2.4rem; min-height: 0 !important;
 height: auto !important}
#faces .grid-container {grid-template-columns: repeat(auto-fill, 84px) !important}
#photos .grid-container {grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)) !important}
#sliders .form {display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr))}
#sliders .form > * {min-width: 0 !important}
footer {display: none !important}
"""


@dataclass(frozen=True)
class Given:
    """The left side."""

    photos: Any
    drawn: Any  # a button, None where there are no first photos
    align: Any
    method: Any
    steps: Any
    button: Any
    said: Any


@dataclass(frozen=True)
class Shown:
    """The right side."""

    faces: Any
    photo: Any
    found: Any
    edited: Any
    sliders: list[Any]
    reset: Any
    along: Any
    make: Any
    ribbon: Any
    files: Any


def build_page(studio: Studio, first: Sequence[Path], align: bool, no_align: str) -> Any:
    """The page, as `gradio.Blocks`.

    Args:
        studio: what does the work.
        first: photos that are there, and inverted by the encoder, when the page opens.
        align: whether faces are to be aligned unless a visitor says otherwise.
        no_align: why they cannot be; "" where they can.
    """
    import gradio as gr

    squares = ["squares"] if studio.resolution <= FEW else []
    with gr.Blocks(
        title="ganinv demo", analytics_enabled=False, delete_cache=(SECONDS, SECONDS)
    ) as page:
        gr.Markdown(f"## ganinv demo\n{escape(studio.opened.words)}, {studio.resolution} px")
        session, place = gr.State(None, time_to_live=SECONDS), gr.State(0)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                given = _given(studio, first, align, no_align, squares)
            with gr.Column(scale=3, min_width=320):
                shown = _shown(studio, squares)
        _when_photos_are_given(page, studio, first, session, place, given, shown)
        _when_sliders_move(studio, session, place, shown)
    return page


def _given(
    studio: Studio, first: Sequence[Path], align: bool, no_align: str, squares: list[str]
) -> Given:
    import gradio as gr

    mib = MOST_BYTES >> 20
    photos = gr.Gallery(
        value=[str(path) for path in first] or None, label=f"Photos: up to {MOST_PHOTOS}, of at "
        f"most {mib} MiB each", type="filepath", file_types=["image"], interactive=True, columns=4,
        object_fit="contain", elem_id="photos", elem_classes=squares, buttons=[],
    )  # fmt: skip
    drawn = gr.Button("The first photos again", size="sm") if first else None
    tick = gr.Checkbox(
        value=align and not no_align, interactive=not no_align, elem_id="align",
        label="Align: crop the largest face of each photo as FFHQ's were", info=no_align or None,
    )  # fmt: skip
    with gr.Row():
        method = gr.Dropdown(
            list(studio.methods), value=ENCODE, label="Method", elem_id="method", min_width=140
        )
        steps = gr.Number(
            None, label="Steps", precision=0, minimum=1, maximum=MOST_STEPS, visible=False,
            elem_id="steps", min_width=100,
        )  # fmt: skip
    button = gr.Button("Invert", variant="primary", elem_id="invert")
    said = gr.Textbox(label="What happened", interactive=False, lines=2, elem_id="said")
    return Given(photos, drawn, tick, method, steps, button, said)


def _shown(studio: Studio, squares: list[str]) -> Shown:
    import gradio as gr

    def image(label: str, name: str) -> Any:
        return gr.Image(
            label=label, elem_id=name, elem_classes=["panel", *squares], interactive=False,
            format="png", min_width=100, height=240, buttons=["download"],
        )  # fmt: skip

    with gr.Row():
        photo, found = image("Photo", "photo"), image("Inverted", "found")
        edited = image("Edited", "edited")
    faces = gr.Gallery(
        label="Choose a face", elem_id="faces", elem_classes=squares, interactive=False, columns=8,
        allow_preview=False, object_fit="contain", format="png", buttons=[],
    )  # fmt: skip
    sliders, labels = [], [control.label for control in studio.controls]
    with gr.Row(elem_id="sliders"):
        for number, label in enumerate(labels):
            sliders.append(
                gr.Slider(
                    -studio.strength,
                    studio.strength,
                    0,
                    step=STEP,
                    label=label,
                    min_width=220,
                    elem_id=f"slider-{number}",
                )  # fmt: skip
            )
    reset = gr.Button("All sliders to 0", size="sm", visible=bool(labels))
    with gr.Accordion("Strip, video and code", open=False, visible=bool(labels), elem_id="more"):
        with gr.Row():
            along = gr.Dropdown(labels, value=labels[0] if labels else None, label="Strip along")
            make = gr.Button("Make the files", elem_id="make")
        ribbon = gr.Image(
            label="Strip", show_label=False, interactive=False, format="png", elem_id="strip",
            buttons=[],
        )  # fmt: skip
        files = gr.Files(label="To download", interactive=False, elem_id="files")
    return Shown(faces, photo, found, edited, sliders, reset, along, make, ribbon, files)


# ------------------------------------------------------------------ what happens


def _when_photos_are_given(
    page: Any, studio: Studio, first: Sequence[Path], session: Any, place: Any, given: Given,
    shown: Shown,
) -> None:  # fmt: skip
    import gradio as gr

    outputs = [session, place, given.said, shown.faces, shown.photo, shown.found, shown.edited]
    outputs += [shown.ribbon, shown.files, *shown.sliders]

    def results(made: Session) -> list[Any]:
        faces = gr.Gallery(value=made.images, selected_index=0)
        images = [made.photos[0], made.images[0], made.images[0]]
        return [made, 0, made.said, faces, *images, None, None, *[0 for _ in shown.sliders]]

    bar = gr.Progress()

    def invert(
        photos: Any, align: bool, method: str, steps: float | None, progress: Any = bar
    ) -> list[Any]:
        with in_words():
            paths = [Path(path) for path, _ in photos or []]
            number = None if steps is None else int(steps)
            made = studio.invert(paths, method=method, steps=number, align=align, tell=progress)
        return results(made)

    def begin() -> list[Any]:
        with in_words():
            made = studio.invert(
                first, method=ENCODE, steps=None, align=False, tell=lambda share, words: None
            )
        return results(made)

    def choose(made: Session, which: gr.SelectData) -> list[Any]:
        number = min(int(which.index), len(made.names) - 1)
        images = [made.photos[number], made.images[number], made.images[number]]
        return [number, *images, None, None, *[0 for _ in shown.sliders]]

    def steps_of(method: str) -> Any:
        steps = studio.steps_of(method)
        return gr.Number(value=steps, visible=steps is not None)

    inputs = [given.photos, given.align, given.method, given.steps]
    alone: Any = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
    given.button.click(invert, inputs, outputs, show_progress_on=[given.said], **alone)
    given.method.change(
        steps_of, given.method, given.steps, show_progress="hidden", api_visibility="private"
    )
    if first:
        page.load(begin, None, outputs, show_progress_on=[given.said], **alone)
        given.drawn.click(
            lambda: [str(path) for path in first], None, given.photos, api_visibility="private"
        )
    chosen = [place, shown.photo, shown.found, shown.edited, shown.ribbon, shown.files]
    shown.faces.select(
        choose, session, [*chosen, *shown.sliders], show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip


def _when_sliders_move(studio: Studio, session: Any, place: Any, shown: Shown) -> None:
    import gradio as gr

    def edit(made: Session | None, number: int, *strengths: float) -> Any:
        with in_words():
            return studio.picture(studio.edited(_there(made), number, strengths))

    def reset(made: Session | None, number: int) -> list[Any]:
        with in_words():
            return [_there(made).images[number], *[0 for _ in shown.sliders]]

    bar = gr.Progress()

    def make(
        made: Session | None, number: int, along: str, *strengths: float, progress: Any = bar
    ) -> list[Any]:
        with in_words():
            paths = studio.files(_there(made), number, strengths, along, progress)
        return [str(paths[0]), [str(path) for path in paths]]

    if not shown.sliders:
        return
    alone: Any = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
    gr.on(
        [slider.input for slider in shown.sliders], edit, [session, place, *shown.sliders],
        shown.edited, trigger_mode="always_last", show_progress="hidden", **alone,
    )  # fmt: skip
    shown.reset.click(
        reset, [session, place], [shown.edited, *shown.sliders], show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    shown.make.click(
        make, [session, place, shown.along, *shown.sliders], [shown.ribbon, shown.files],
        show_progress_on=[shown.ribbon], **alone,
    )  # fmt: skip


def _there(made: Session | None) -> Session:
    if made is None:
        raise ConfigError(
            explain("no inverted photo", "one, which is kept for an hour", "press Invert")
        )
    return made


@contextmanager
def in_words() -> Iterator[None]:
    """What a visitor can get wrong is a sentence on the page, not a traceback."""
    import gradio as gr
    import torch

    try:
        yield
    except USER_ERRORS as error:
        raise gr.Error(escape(str(error)), duration=None, print_exception=False) from error
    except torch.OutOfMemoryError as error:
        words = explain("more memory than there is", "fewer or smaller images", "--size, --device")
        raise gr.Error(words, duration=None, print_exception=False) from error
