"""A model as graphs that run without ganinv: ONNX and torch.export.

    encoder     image [B,C,H,W] -> wp [B,L,D]
    generator   wp [B,L,D] -> x_hat [B,3,R,R]
    inverter    image -> wp, x_hat

The batch is dynamic, noise is the stored one, the average is inside. Each file says what it takes:
`ganinv.image` (channels, height, width, colour, range), `ganinv.num_ws` and the rest of `facts`.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ganinv.core.errors import ConfigError, explain
from ganinv.core.safe.io import write_atomic
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.interop.bundle import facts, generator_facts
from ganinv.inversion.model import Model

MAX_BATCH = 1024
OPSET = 20
EXAMPLE_BATCH = 2  # a batch of one would be taken for a constant


class EncoderGraph(nn.Module):
    """image -> wp."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,L,D]."""
        return self.model.encode(image)


class GeneratorGraph(nn.Module):
    """wp -> x_hat."""

    def __init__(self, generator: AnyGenerator) -> None:
        super().__init__()
        self.synthesis = generator.synthesis

    def forward(self, wp: Tensor) -> Tensor:
        """[B,L,D] -> [B,3,R,R]."""
        x_hat: Tensor = self.synthesis(wp, noise="const")
        return x_hat


class ModelGraph(nn.Module):
    """image -> wp, x_hat."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B,C,H,W] -> [B,L,D], [B,3,R,R]."""
        wp, x_hat = self.model(image)
        return wp, x_hat


@dataclass(frozen=True)
class Graph:
    """One graph: its file's stem, its module, an example and the names of what goes in and out."""

    name: str
    module: nn.Module
    example: Tensor
    takes: str
    gives: tuple[str, ...]

    def program(self) -> ExportedProgram:
        """torch.export's, with a dynamic batch."""
        batch = Dim("batch", min=1, max=MAX_BATCH)
        shapes = {self.takes: {0: batch}}
        with torch.no_grad():
            return torch.export.export(self.module, (self.example,), dynamic_shapes=shapes)


def graphs(model: Model | AnyGenerator) -> list[Graph]:
    """The graphs of a model: three of an encoder with its generator, one of a generator alone."""
    if next(model.parameters()).device.type != "cpu":
        model = copy.deepcopy(model).cpu()
    generator = model.G if isinstance(model, Model) else model
    w_avg = generator.w_avg
    wp = w_avg + torch.randn(EXAMPLE_BATCH, generator.num_ws, len(w_avg))
    found = [Graph("generator", GeneratorGraph(generator).eval(), wp, "wp", ("image",))]
    if isinstance(model, Model):
        channels, (height, width) = model.task.channels, model.input_size
        image = torch.rand(EXAMPLE_BATCH, channels, height, width) * 2 - 1
        if model.refinements:
            model.average_image(image.shape[-2:])  # a constant of the graph, made before it
        encoder, both = EncoderGraph(model).eval(), ModelGraph(model).eval()
        found.insert(0, Graph("encoder", encoder, image, "image", ("wp",)))
        found.append(Graph("inverter", both, image, "image", ("wp", "reconstruction")))
    return found


def _facts(model: Model | AnyGenerator, graph: Graph) -> dict[str, str]:
    metadata: dict[str, Any] = (
        facts(model)
        if isinstance(model, Model)
        else {
            "generator": generator_facts(model),
            "num_ws": model.num_ws,
            "image": {"colour": "RGB", "range": [-1, 1]},
        }
    )
    metadata |= {"graph": graph.name, "takes": [graph.takes], "gives": list(graph.gives)}
    return {f"ganinv.{key}": json.dumps(value, sort_keys=True) for key, value in metadata.items()}


def write_onnx(folder: Path, model: Model | AnyGenerator) -> list[Path]:
    """One `.onnx` a graph, weights inside; returns the files.

    Raises:
        ConfigError: the packages for it are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            explain(f"--to onnx without the package {error.name}", "onnx and onnxscript",
                    "pip install 'ganinv[onnx]'")
        ) from error  # fmt: skip
    written = []
    for graph in graphs(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter, to its own authors
            program = torch.onnx.export(
                graph.program(), dynamo=True, opset_version=OPSET, verbose=False, optimize=True,
                input_names=[graph.takes], output_names=list(graph.gives),
            )  # fmt: skip
        assert program is not None
        proto = program.model_proto
        _name_batch(proto.graph)
        for key, value in _facts(model, graph).items():
            proto.metadata_props.add(key=key, value=value)
        path = folder / f"{graph.name}.onnx"
        write_atomic(path, proto.SerializeToString())
        written.append(path)
    return written


def _name_batch(graph: Any) -> None:
    """Call the free axis `batch`; the exporter names it after a symbol of its own."""
    free = {d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim if d.dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in free:
                dim.dim_param = "batch"


def write_programs(folder: Path, model: Model | AnyGenerator) -> list[Path]:
    """One `.pt2` of torch.export a graph, with `ganinv.json` inside; returns the files."""
    written = []
    for graph in graphs(model):
        buffer = io.BytesIO()
        text = json.dumps(_facts(model, graph))
        torch.export.save(graph.program(), buffer, extra_files={"ganinv.json": text})
        path = folder / f"{graph.name}.pt2"
        write_atomic(path, buffer.getvalue())
        written.append(path)
    return written
