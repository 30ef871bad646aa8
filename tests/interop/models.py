"""Models for the export tests: the official architecture with an 8 px generator, and tiny ones."""

import torch

from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.interop import task
from ganinv.interop.encoder import ENCODERS
from ganinv.inversion.model import Model

WIDE = {"z_dim": 512, "w_dim": 512, "mapping_layers": 8, "channel_base": 32768, "channel_max": 512}
TINY = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 512, "channel_max": 8}


def stylegan2(resolution, *, shape=WIDE, clamp=None, c_dim=0):
    """Random weights, with noise that matters."""
    generator = StyleGAN2Generator(
        c_dim=c_dim, resolution=resolution, img_channels=3, conv_clamp=clamp, **shape
    )
    for name, value in generator.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.1)
    generator.mapping.w_avg.normal_(0, 0.3)
    generator.source, generator.sha256 = "nowhere", "0" * 64
    return generator


def model_of(kind, generator, *, trunk="ir_se50", start=True, **changes):
    """An encoder of this class with random weights."""
    size, channels = (256 if trunk == "ir_se50" else 64), (6 if kind.startswith("ReStyle") else 3)
    settings = {"num_ws": generator.num_ws, "w_dim": generator.w_dim, "input_size": size}
    settings |= {"input_nc": channels, "trunk": trunk} | changes
    if "ResNet" in kind:
        del settings["trunk"]
    encoder = ENCODERS[kind](**settings)
    for name, value in encoder.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    refines = kind.startswith("ReStyle")
    return Model(
        encoder=encoder,
        generator=generator,
        task=task.of_channels(settings["input_nc"] - (3 if refines else 0)),
        start_from_w_avg=start,
        refinements=5 if refines else 0,
        architecture=settings,
    ).freeze()


def tiny(kind="Encoder4Editing", **changes):
    """64 px, a few thousand weights in the generator."""
    return model_of(kind, stylegan2(64, shape=TINY), trunk="ir_se_small", **changes)


def shapes_only(kind, resolution, **changes):
    """The official architecture at full size, without memory for it."""
    with torch.device("meta"):
        generator = StyleGAN2Generator(
            c_dim=0, resolution=resolution, img_channels=3, conv_clamp=None, **WIDE
        )
        return model_of(kind, generator, **changes)
