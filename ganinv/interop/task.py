"""The tasks that a file may name. A file never says which code reads its inputs: it says a name of
this list, and the numbers that the name takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganinv.core.errors import WeightsError, explain, named, shown
from ganinv.task.frontalisation import Frontalisation
from ganinv.task.image import Image
from ganinv.task.paired import Segmentation, Sketch, Translation
from ganinv.task.super_resolution import SuperResolution
from ganinv.task.task import Task

PLAIN: dict[str, type[Task]] = {
    kind.__name__: kind for kind in (Image, Frontalisation, Translation, Sketch)
}
MAX_FACTORS, MAX_FACTOR = 32, 1024


def facts_of(task: Task) -> dict[str, Any]:
    """What a file says about a task; `build` is its inverse."""
    facts: dict[str, Any] = {"kind": type(task).__name__}
    if isinstance(task, Segmentation):
        facts["classes"] = task.channels
    if isinstance(task, SuperResolution):
        facts["factors"] = list(task.factors)
    return facts


def build(facts: Any, source: str) -> Task:
    """The task that a file describes.

    Args:
        facts: as `facts_of` gives them.
        source: the file, for the message.

    Raises:
        WeightsError: an unknown task, or numbers that it does not take.
    """
    facts = dict(facts) if isinstance(facts, Mapping) else {"kind": facts}
    kind = facts.pop("kind", None)
    if isinstance(kind, str) and kind in PLAIN and not facts:
        return PLAIN[kind]()
    numbers = facts.get("factors") if kind == "SuperResolution" else [facts.get("classes")]
    whole = isinstance(numbers, list) and all(type(n) is int and n > 0 for n in numbers)
    if kind == "Segmentation" and set(facts) == {"classes"} and whole and 1 < numbers[0] <= 256:
        return Segmentation(classes=numbers[0])
    if kind == "SuperResolution" and set(facts) == {"factors"} and whole and numbers:
        if len(numbers) <= MAX_FACTORS and max(numbers) <= MAX_FACTOR:
            return SuperResolution(factors=numbers)
    names = ", ".join((*PLAIN, "Segmentation (classes: 2 to 256)", "SuperResolution (factors)"))
    raise WeightsError(
        explain(f"{source} with the task {shown(kind)} and {', '.join(map(named, facts))[:200]}",
                f"one of {names}", "check the file")
    )  # fmt: skip


def of_channels(channels: int) -> Task:
    """What pSp's and e4e's encoders of so many channels read: images, drawings in grey, or maps of
    as many classes."""
    if channels == Image.channels:
        return Image()
    return Sketch() if channels == Sketch.channels else Segmentation(classes=channels)
