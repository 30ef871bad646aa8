"""The encoder checkpoints of other code bases -> a `Model`; the kind is read from the content.

    pSp, e4e, ReStyle, HyperStyle's W encoder    {"state_dict": encoder.*, decoder.*, "opts",
                                                  "latent_avg"}, see `interop/official.py`
    IDInvert                                     encoder and generator in a file each: `idinvert`

The architecture comes from shapes: L from the generator, the input's channels from the first
convolution, pyramid or not from latlayer1. `opts.encoder_type` is believed only about what shapes
cannot show, which is whether the heads give codes or offsets from the first one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganinv.core.errors import WeightsError, explain, shown
from ganinv.core.network import state_of
from ganinv.generator.importer import rosinality
from ganinv.generator.importer.bundle import AnyGenerator
from ganinv.generator.importer.load import check_no_hypernetwork
from ganinv.interop import task
from ganinv.interop.encoder import ITERATIVE, build_encoder
from ganinv.inversion.model import Model

log = logging.getLogger(__name__)

OFFSETS = {  # encoder_type -> whether layers 1 ... L-1 are offsets from layer 0
    "GradualStyleEncoder": False,
    "BackboneEncoder": False,
    "Encoder4Editing": True,
    "ProgressiveBackboneEncoder": True,
    "ResNetBackboneEncoder": False,
    "ResNetProgressiveBackboneEncoder": True,
}
KINDS = {  # (pyramid, offsets) -> our class, where every layer has a head
    (True, False): "GradualStyleEncoder",
    (True, True): "Encoder4Editing",
    (False, False): "ReStyleEncoder",
    (False, True): "ReStyleEncoder4Editing",
}
RESNET = {False: "ReStyleResNetEncoder", True: "ReStyleResNetEncoder4Editing"}  # offsets -> class
WIDE = ("cars_encode",)  # dataset_type whose images are 192 x 256 px
RELEASED_HEADS = 18  # of encoders made for 1024 px, whatever G they came with
REFINEMENTS = 5  # in training and inference (arXiv 2104.02699, sec. 3), where a file does not say
MAX_REFINEMENTS = 100


def is_official(content: Any) -> bool:
    """Whether a torch file holds an encoder and its generator as pSp's trainers write them."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    marks = {"encoder.input_layer.0.weight", "encoder.conv1.weight"}  # IR-SE50's, ResNet-34's
    return isinstance(state, dict) and not marks.isdisjoint(state)


def read(content: Mapping[str, Any]) -> Model:
    """The content of a pSp, e4e, ReStyle or W-encoder checkpoint -> our networks.

    Raises:
        WeightsError: a class that ganinv does not have, a file that does not say which class it
            is of, tensors missing or of another shape, averages that differ from layer to layer.
    """
    whole = content.get("state_dict", content)
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in whole.items()
               if str(k).startswith(("encoder.", "decoder."))):  # fmt: skip
        raise WeightsError("entries of state_dict that are no tensors; check the file")
    check_no_hypernetwork(filter(lambda key: isinstance(key, str), whole), "a checkpoint")
    state, decoder = _part(whole, "encoder."), _part(whole, "decoder.")
    opts = content.get("opts")
    opts = opts if isinstance(opts, dict) else {}
    if not decoder:
        raise WeightsError(
            explain("a checkpoint with encoder.* and no decoder.*",
                    "the generator beside the encoder, as the released trainers write it",
                    "pass the whole checkpoint")
        )  # fmt: skip
    generator = rosinality.import_state(decoder, _average(content.get("latent_avg")))
    generator.eval().requires_grad_(False)
    state = trimmed(state, generator.num_ws)
    kind = kind_of(state, opts.get("encoder_type"))
    pyramid = "latlayer1.weight" in state
    if pyramid and (kind in RESNET.values() or "n_iters_per_batch" in opts):
        raise WeightsError(
            explain("a ReStyle encoder with a feature pyramid", "one without, BackboneEncoder or "
                    "ProgressiveBackboneEncoder", "pass such a model; ganinv has no other")
        )  # fmt: skip
    resnet = kind in RESNET.values()
    input_nc = _shape(state, "conv1.weight" if resnet else "input_layer.0.weight")[1]
    architecture = {
        "num_ws": generator.num_ws,
        "w_dim": generator.w_dim,
        "input_size": [192, 256] if shown(opts.get("dataset_type")) in map(repr, WIDE) else 256,
        "input_nc": input_nc,
        **({} if resnet else {"trunk": "ir_se50"}),
    }
    refines = kind in ITERATIVE
    channels = input_nc - (3 if refines else 0)
    if channels < 1:
        raise WeightsError(
            explain(f"a {kind} that reads {input_nc} channels", "4 or more: an image's, and the 3 "
                    "of its reconstruction", "check the file")
        )  # fmt: skip
    return Model(
        encoder=build_encoder(kind, architecture, state, f"a {kind} of {generator.num_ws} layers"),
        generator=generator,
        task=task.of_channels(channels),
        start_from_w_avg=_start(kind, opts),
        refinements=_refinements(opts) if refines else 0,
        architecture=architecture,
    ).freeze()


def _refinements(opts: dict[str, Any]) -> int:
    given = opts.get("n_iters_per_batch")
    return given if type(given) is int and 0 < given <= MAX_REFINEMENTS else REFINEMENTS


def trimmed(state: dict[str, Tensor], num_ws: int) -> dict[str, Tensor]:
    """Without the heads of layers that the generator does not have: e4e's released cars encoder
    says 18 for a generator of 16, and its own script leaves out the last two."""
    found = {key: re.match(r"styles\.(\d{1,4})\.", key, re.ASCII) for key in state}
    heads = {key: int(match[1]) for key, match in found.items() if match}
    extra = {key for key, head in heads.items() if head >= num_ws}
    if len(set(heads.values())) != RELEASED_HEADS:
        return state
    if extra:
        count = len({heads[key] for key in extra})
        log.warning("the last %d heads of the encoder are left out: G has %d layers", count, num_ws)
    return {key: value for key, value in state.items() if key not in extra}


def _start(kind: str, opts: dict[str, Any]) -> bool:
    """ReStyle adds the average whatever `opts` says."""
    return kind.startswith("ReStyle") or bool(opts.get("start_from_latent_avg", True))


def dataset_type(content: Mapping[str, Any]) -> str | None:
    """What a released checkpoint calls its images, where it says so."""
    opts = content.get("opts")
    name = opts.get("dataset_type") if isinstance(opts, dict) else None
    return name if isinstance(name, str) and len(name) < 100 else None


def _part(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if str(k).startswith(prefix)}


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state or state[key].ndim != 4:
        raise WeightsError(f"an encoder without {key}; expected pSp's, e4e's or ReStyle's")
    return tuple(state[key].shape)


def _average(value: Any) -> Tensor | None:
    """`latent_avg` [L,512], [1,512] or [512] -> [512]; None where the file has none."""
    if not isinstance(value, Tensor) or value.numel() == 0 or value.ndim == 0:
        return None
    layers = value.float().reshape(-1, value.shape[-1])
    if not torch.equal(layers, layers[:1].expand_as(layers)):
        raise WeightsError(
            explain(f"a latent_avg of {len(layers)} layers that differ",
                    "one w for all layers: ganinv's generators have one w_avg [D]",
                    "train with the average of the generator")
        )  # fmt: skip
    return layers[0]


def kind_of(state: Mapping[str, Tensor], encoder_type: Any) -> str:
    """Our class for an encoder's tensors.

    Args:
        state: its state dict.
        encoder_type: what the file calls it, if it does.

    Raises:
        WeightsError: not one of ours; or one whose name alone would tell how its heads combine, and
            the file has none.
    """
    if "styles.0.linear.weight" not in state and "input_layer.0.weight" in state:
        return "WPlusEncoder" if "output_layer_2.3.weight" in state else "WEncoder"
    if type(encoder_type) is not str or encoder_type not in OFFSETS:
        raise WeightsError(
            explain(
                f"a checkpoint with opts.encoder_type={shown(encoder_type)}",
                f"one of {', '.join(OFFSETS)}: the tensors alone do not tell whether layers are "
                "offsets from the first one",
                "pass the file that the training wrote, with its opts",
            )
        )
    if "conv1.weight" in state:
        return RESNET[OFFSETS[encoder_type]]
    return KINDS["latlayer1.weight" in state, OFFSETS[encoder_type]]


# ------------------------------------------------------------------ IDInvert


def is_idinvert(content: Any) -> bool:
    """Whether a torch file is an encoder of genforce/idinvert_pytorch."""
    return isinstance(content, dict) and "block0.bn.bn.running_mean" in content


def idinvert(state: Mapping[str, Tensor], generator: AnyGenerator) -> Model:
    """A `*_encoder.pth` of IDInvert, with its generator.

    Raises:
        WeightsError: tensors missing or of another shape, or an encoder of another generator.
    """
    state = state_of(state, "an encoder of IDInvert")
    blocks = (re.match(r"block(\d{1,4})\.", key, re.ASCII) for key in state)
    last = max((int(match[1]) for match in blocks if match), default=0)
    code = state.get(f"block{last}.fc.weight")
    width = generator.num_ws * generator.w_dim
    if code is None or code.ndim != 2 or code.shape[0] != width or last > 12:
        given = "no code layer" if code is None else f"codes of {code.shape[0]} numbers"
        raise WeightsError(
            explain(f"an encoder with {given}",
                    f"{width}: {generator.num_ws} layers of {generator.w_dim} for this generator",
                    "pass the generator that the encoder was trained with")
        )  # fmt: skip
    channels = [v.shape[0] for k, v in state.items() if k.endswith(".wscale2.bias") and v.ndim]
    stem = _shape(state, "block0.conv.weight")
    architecture = {
        "num_ws": generator.num_ws,
        "w_dim": generator.w_dim,
        "input_size": 2 ** (last + 1),
        "input_nc": stem[1],
        "channel_base": stem[0],
        "channel_max": max([stem[0], *channels]),
    }
    kind = "DomainGuidedEncoder"
    return Model(
        encoder=build_encoder(kind, architecture, state, "an encoder of IDInvert"),
        generator=generator,
        task=task.of_channels(stem[1]),
        start_from_w_avg=False,
        architecture=architecture,
    ).freeze()
