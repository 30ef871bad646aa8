"""What an evaluation writes: JSON that parses, a page that needs nothing, pictures that tell."""

import base64
import copy
import csv
import io
import json
import re
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from rich.console import Console

from ganinv.evaluation import report, table
from ganinv.evaluation.curve import Curve
from ganinv.evaluation.result import Picture, Result, Row


def picture(key, value, error=0):
    image = torch.full((3, 4, 6), value, dtype=torch.uint8)
    return Picture(key, image, image + error, {"mse": 0.25, "psnr": float("inf")})


@pytest.fixture
def result():
    pictures = [picture("a", 10), picture("<b>", 10, 128)]
    row = Row(
        "encode",
        {"mse": 0.25, "psnr": float("inf")},
        1.5,
        ["a", "<b>"],
        {"mse": [0.25, 0.25], "psnr": [float("inf")] * 2, "seconds": [1.5, 1.5]},
        pictures,
        pictures[1:],
    )
    higher_is_better = {"mse": False, "psnr": True}
    return Result({"checkpoint": "runs/a & b.ckpt", "split": "test"}, higher_is_better, [row])


def test_json_has_no_number_that_json_does_not_know(result):
    content = json.loads(result.json(), parse_constant=pytest.fail)
    assert content["rows"] == [
        {"inversion": "encode", "seconds_per_image": 1.5, "mse": 0.25, "psnr": None}
    ]
    assert content["images"] == 2 and content["checkpoint"] == "runs/a & b.ckpt"


def test_csv_has_a_line_an_image(result):
    rows = list(csv.DictReader(io.StringIO(result.csv())))
    assert [(row["key"], row["mse"]) for row in rows] == [("a", "0.25"), ("<b>", "0.25")]
    assert {row["seconds"] for row in rows} == {"1.5"}


def test_the_page_needs_nothing_else_and_escapes_what_it_is_given(result):
    html = report.page(result, "PSp on test")
    assert not re.search(r"(src|href)=['\"](?!data:)", html)
    assert "&lt;b&gt;" in html and "<b>" not in html and "a &amp; b.ckpt" in html
    found = re.findall(r"data:image/png;base64,([^']+)'", html)
    assert len(found) == 3
    first = Image.open(io.BytesIO(base64.b64decode(found[0])))
    assert first.size == (18, 4)  # input, reconstruction, error


def test_the_page_lists_what_could_not_be_read(result):
    assert "Left out" not in report.page(result, "t")
    result.unreadable = ["x.png: cut <short>"]
    html = report.page(result, "t")
    assert "Left out: 1 that cannot be read" in html and "<li>x.png: cut &lt;short&gt;</li>" in html


def test_the_error_is_black_where_equal_and_white_at_half_the_range(result):
    first, second = result.rows[0].first
    assert report.error_map(first.image, first.reconstruction).max() == 0
    assert report.error_map(second.image, second.reconstruction).min() == 255


def test_the_grid_has_inputs_over_reconstructions_over_errors():
    pictures = [picture(str(i), i) for i in range(10)]
    grid = report.grid(pictures)
    assert grid.size == (8 * 8 + 2, 6 * 6 + 2)  # eight columns of 6 px, six rows of 4 px, borders
    assert grid.getpixel((2 + 8 * 3, 2)) == (3, 3, 3)
    assert grid.getpixel((2, 2 + 6)) == (0, 0, 0)  # the reconstruction of image 0
    assert grid.getpixel((2 + 8 * 2, 2 + 6 * 3)) == (255, 255, 255)  # nothing in the last row


def test_the_table_points_to_better(result):
    buffer = io.StringIO()
    table.show(result, Console(file=buffer, width=80))
    text = buffer.getvalue()
    assert "mse ↓" in text and "psnr ↑" in text and "time/image ↓" in text and "0.25" in text


def test_durations_are_told_in_a_unit_that_fits():
    told = [table.duration(seconds) for seconds in (0.0123, 0.5, 1, 45.67, 119, 120, 3600)]
    assert told == ["12.3 ms", "500 ms", "1 s", "45.7 s", "119 s", "2 min", "60 min"]


def optimised(result):
    """The same with a second row, of a method that takes steps and lost an image."""
    row = copy.copy(result.rows[0])
    row.inversion, row.steps_per_image, row.failed = "pti", 7.5, ["<b>"]
    row.curve = Curve([0, 1, 2], [4.0, 2.0, 1.0], [3.0, 1.0, 0.5], [5.0, 3.0, float("nan")])
    result.rows.append(row)
    return result


def test_a_row_of_an_optimising_method_says_its_steps_and_what_failed(result):
    assert [len(row) for row in table.cells(result)] == [4]
    cells = table.cells(optimised(result))
    assert [row[0] for row in cells] == ["encode", "pti (1 not finite)"]
    assert [row[3] for row in cells] == ["", "7.5"]
    assert table.headings(result) == ["mse ↓", "psnr ↑", "steps/image", "time/image ↓"]
    (told,) = table.failures(result)
    assert told.startswith("pti: 1 of 2 images came to a loss or gradient that is no finite number")
    assert told.endswith("kept as they were before: <b>")
    content = json.loads(result.json(), parse_constant=pytest.fail)["rows"][1]
    assert content["steps_per_image"] == 7.5 and content["not_finite"] == ["<b>"]
    assert content["loss"]["median"] == [4, 2, 1] and content["loss"]["high"] == [5, 3, None]


def test_the_page_draws_the_loss_of_optimising_methods_alone(result):
    assert "<svg" not in report.page(result, "t")
    html = report.page(optimised(result), "t")
    (drawing,) = re.findall(r"<svg.*?</svg>", html)
    tree = ElementTree.fromstring(drawing)
    (line,) = tree.findall("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points) and len(points) == 3
    assert points[0][1] < points[1][1] < points[2][1]  # a falling loss falls
    assert "pti: 1 of 2 images came to" in html and "before: &lt;b&gt;" in html


def test_columns_say_how_they_are_measured_where_papers_differ(result):
    assert "Measured on" not in report.page(result, "t")
    result.protocol = {"psnr": "dB of the peak 2 of [-1,1], 64 x 64 px"}
    assert table.protocols(result) == ["psnr: dB of the peak 2 of [-1,1], 64 x 64 px"]
    words = "of 8 bits: psnr: dB of the peak 2 of [-1,1], 64 x 64 px.</p>"
    assert words in report.page(result, "t")
    assert json.loads(result.json())["protocol"] == result.protocol


def test_a_table_that_is_too_wide_is_printed_in_parts_with_the_names(result):
    """Whole columns with their intervals, and every row's name in each part."""
    names = [f"column_{i}" for i in range(8)]
    (row,) = result.rows
    row.values, row.intervals = dict.fromkeys(names, 12.345), {"column_7": (11.5, 13.25)}
    result.higher_is_better = dict.fromkeys(names, False)
    for width in range(40, 100):
        console = Console(width=width, file=io.StringIO())
        table.show(result, console)
        said = console.file.getvalue()
        assert all(f"{name} ↓" in said for name in names) and "[11.5, 13.25]" in said
        assert said.count("inversion") == said.count("encode") > 1
        assert max(map(len, said.splitlines())) <= width
