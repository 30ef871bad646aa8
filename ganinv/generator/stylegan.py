"""StyleGAN (v1) generator, also as IDInvert trains it: one w for each layer, tanh at the end.

Source: Karras et al., "A Style-Based Generator Architecture for GANs", arXiv 1812.04948; the
layer-wise mapping and the tanh: Zhu et al. (IDInvert), arXiv 2004.00049.
`importer/genforce.py` maps the two published layouts onto the keys below.

    z  [B,Z]      latent, N(0, I)
    w  [B,D]      style; a layer-wise mapping gives wp [B,L,D] at once
    wp [B,L,D]    L = num_ws = 2*log2(R) - 2
    f  [B,C,h,h]  replaces what block b{h} normalises first (BDInvert, arXiv 2108.08998)

Layers of wp: block b{2^k} uses 2k-4 (layer0) and 2k-3 (layer1). A layer is

    x -> conv (up: then blur) -> + noise -> + bias -> leaky ReLU -> instance norm -> x (1 + s0) + s1

with (s0, s1) = affine(w). f takes the place of x ahead of the instance norm of layer0, so the mean
and the scale of its channels have no effect.

Only the last resolution gives the image. The to-RGB convolutions of the coarser ones, left over
from progressive growing, are carried along (as buffers) so that a file goes out as it came in.

Differs from the released code in: the mapping leaves repeating and truncation to the caller; the
network is fully grown (lod 0); noise may be seeded image by image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.interface import Noise
from ganinv.core.latent import num_ws
from ganinv.core.op import Dense, full, setup_filter, upfirdn2d
from ganinv.generator.per_image import NoiseMaps, synthesize_changed
from ganinv.generator.stylegan2 import NoiseSource, normalize

FUSED_FROM = 128  # px: from here on, upsampling and convolution are one transposed convolution


class MappingNetwork(nn.Module):
    """z [B,Z] -> w [B,D], or wp [B,L,D] when layer-wise: normalise, then dense layers.

    Args:
        z_dim: Z.
        w_dim: D.
        num_layers: dense layers, each with leaky ReLU, the last one too.
        num_ws: L of a layer-wise mapping, whose last layer is L times as wide; 0 for one w.
    """

    w_avg: Tensor

    def __init__(self, *, z_dim: int, w_dim: int, num_layers: int, num_ws: int) -> None:
        super().__init__()
        self.num_layers, self.num_ws, self.w_dim = num_layers, num_ws, w_dim
        for i in range(num_layers):
            width = w_dim * num_ws if num_ws and i == num_layers - 1 else w_dim
            layer = Dense(w_dim if i else z_dim, width, lr_mul=0.01, gain=math.sqrt(2))
            setattr(self, f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map. There are no labels: c must be None."""
        if c is not None:
            raise ValueError("a label was given; expected none: this StyleGAN has no classes")
        x = normalize(full(z))
        for i in range(self.num_layers):
            x = F.leaky_relu(getattr(self, f"fc{i}")(x), 0.2)
        return x.unflatten(1, (self.num_ws, self.w_dim)) if self.num_ws else x


class SynthesisLayer(nn.Module):
    """One layer of the formula above: x [B,Ci,h,h], w [B,D] -> [B,Co,R,R].

    Args:
        ci: channels of x; 0 for the first layer, which has the constant and no convolution.
        co: channels of the result.
        w_dim: D.
        resolution: R in px.
        up: 1 or 2.
    """

    blur: Tensor
    noise_const: Tensor

    def __init__(self, ci: int, co: int, *, w_dim: int, resolution: int, up: int) -> None:
        super().__init__()
        self.up, self.fused = up, resolution >= FUSED_FROM
        if ci > 0:
            self.weight = nn.Parameter(torch.randn(co, ci, 3, 3))
            self.weight_gain = math.sqrt(2 / (ci * 9))
        self.register_buffer("blur", setup_filter((1, 2, 1)), persistent=False)
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.zeros(co))
        self.bias = nn.Parameter(torch.zeros(co))
        self.affine = Dense(w_dim, 2 * co)

    def convolve(self, x: Tensor) -> Tensor:
        """[B,Ci,h,h] -> [B,Co,R,R]."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        if self.up == 1:
            return F.conv2d(x, weight, padding=1)
        if self.fused:
            corners = F.pad(weight, (1, 1, 1, 1))
            weight = (
                corners[..., 1:, 1:]
                + corners[..., :-1, 1:]
                + corners[..., 1:, :-1]
                + corners[..., :-1, :-1]
            )
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)
        return upfirdn2d(x, self.blur, padding=(1, 1, 1, 1))

    def activate(self, x: Tensor, noise: NoiseSource) -> Tensor:
        """Noise of a strength for each channel, bias, leaky ReLU."""
        if (noise_map := noise.map(self.noise_const, x)) is not None:
            x = x + (noise_map * self.noise_strength[:, None, None]).to(x.dtype)
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], 0.2)

    def modulate(self, x: Tensor, w: Tensor) -> Tensor:
        """Instance norm, then scale and shift by the style (AdaIN)."""
        s0, s1 = self.affine(w)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(s1, F.instance_norm(full(x), eps=1e-8), s0 + 1).to(x.dtype)


class ToRGB(nn.Module):
    """1x1 convolution: x [B,C,R,R] -> [B,3,R,R]. One that is not `read` only holds its values."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, img_channels: int, *, read: bool) -> None:
        super().__init__()
        values = {
            "weight": torch.randn(img_channels, channels, 1, 1),
            "bias": torch.zeros(img_channels),
        }
        for name, value in values.items():
            if read:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.weight_gain = 1 / math.sqrt(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The image, in float32."""
        return (
            full(F.conv2d(x, (self.weight * self.weight_gain).to(x.dtype)))
            + (self.bias[:, None, None])
        )


class SynthesisBlock(nn.Module):
    """One resolution: layer0 (from the constant, or upsampling) and layer1."""

    def __init__(
        self, ci: int, co: int, *, w_dim: int, resolution: int, img_channels: int, last: bool
    ) -> None:
        super().__init__()
        if ci == 0:
            self.const = nn.Parameter(torch.ones(co, resolution, resolution))
        layer: dict[str, Any] = {"w_dim": w_dim, "resolution": resolution}
        self.layer0 = SynthesisLayer(ci, co, up=2 if ci else 1, **layer)
        self.layer1 = SynthesisLayer(co, co, up=1, **layer)
        self.torgb = ToRGB(co, img_channels, read=last)

    def enter(self, x: Tensor | None, batch: int, noise: NoiseSource) -> Tensor:
        """layer0 up to its activation: the map that f would replace."""
        if x is None:
            x = self.const.unsqueeze(0).expand(batch, -1, -1, -1)
        else:
            x = self.layer0.convolve(x)
        return self.layer0.activate(x, noise)

    def finish(self, x: Tensor, w0: Tensor, w1: Tensor, noise: NoiseSource) -> Tensor:
        """The rest of layer0 with style w0, then layer1 with style w1."""
        x = self.layer1.convolve(self.layer0.modulate(x, w0))
        return self.layer1.modulate(self.layer1.activate(x, noise), w1)


class SynthesisNetwork(nn.Module):
    """wp [B,L,D] (and f [B,C,h,h]) -> image [B,3,R,R] in about [-1,1]; within it after a tanh.

    Args:
        w_dim: D.
        resolution: R in px, a power of two of at least 8.
        img_channels: 3 for RGB.
        channel_base: the block at R has min(channel_base / R, channel_max) channels.
        channel_max: the most channels of any block.
        final_tanh: whether the image is passed through tanh.
    """

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        final_tanh: bool,
    ) -> None:
        super().__init__()
        self.w_dim, self.resolution, self.num_ws = w_dim, resolution, num_ws(resolution)
        self.final_tanh = final_tanh
        self.block_sizes = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        self.channels = {r: min(channel_base // r, channel_max) for r in self.block_sizes}
        for r in self.block_sizes:
            block = SynthesisBlock(
                self.channels[r // 2] if r > 4 else 0,
                self.channels[r],
                w_dim=w_dim,
                resolution=r,
                img_channels=img_channels,
                last=r == resolution,
            )
            setattr(self, f"b{r}", block)

    def forward(
        self,
        wp: Tensor,
        f: Tensor | None = None,
        noise: Noise | NoiseMaps = "const",
        seeds: Sequence[int] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Synthesise.

        Args:
            wp: [B,L,D].
            f: [B,C,h,h] with h a block size above 4: starts at the instance norm of b{h}.layer0;
                layers of wp below 2*log2(h) - 4 are then not read.
            noise: see `NoiseSource`.
            seeds: see `NoiseSource`.
            weights: changes of the weights, image by image: see `generator/per_image.py`.

        Raises:
            ValueError: wp has other than L layers of D, f fits no block, or noise or weights name
                what the network does not have.
        """
        if wp.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(
                f"wp of shape {tuple(wp.shape)}; expected [B,{self.num_ws},{self.w_dim}] for this "
                f"{self.resolution} px generator"
            )
        if weights:
            return synthesize_changed(self, wp, weights, f, noise)
        start = 4 if f is None else self._block_of(f)
        return self.run_layers(wp, f, start, NoiseSource(noise, seeds, self, wp.shape[0]))

    def run_layers(self, wp: Tensor, f: Tensor | None, start: int, noise: NoiseSource) -> Tensor:
        """`forward` on checked arguments and drawn noise: nothing but layers, which a compiler may
        take as one graph. Starts in the block of `start` px."""
        x = None
        for r in self.block_sizes[self.block_sizes.index(start) :]:
            block, k = getattr(self, f"b{r}"), 2 * int(math.log2(r))
            x = f if f is not None and r == start else block.enter(x, wp.shape[0], noise)
            x = block.finish(x, wp[:, k - 4], wp[:, k - 3], noise)
        image: Tensor = block.torgb(x)
        return image.tanh() if self.final_tanh else image

    def _block_of(self, f: Tensor) -> int:
        size = f.shape[-1]
        shapes = [(self.channels[r], r, r) for r in self.block_sizes[1:]]
        if tuple(f.shape[1:]) not in shapes:
            raise ValueError(f"f of shape {tuple(f.shape)}; expected [B,*] with * one of {shapes}")
        return size


class StyleGANGenerator(nn.Module):
    """z -> w (or wp) -> image. `architecture` holds the arguments that build an equal network;
    `source` and `sha256` say which file its weights came from, if any.

    Args:
        z_dim: width of z.
        w_dim: width of w.
        resolution: side of the image in px.
        img_channels: 3 for RGB.
        mapping_layers: dense layers of the mapping network.
        layerwise: whether the mapping gives a w of its own to each layer (IDInvert) or one for all.
        channel_base: see `SynthesisNetwork`.
        channel_max: see `SynthesisNetwork`.
        final_tanh: see `SynthesisNetwork`.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        mapping_layers: int,
        layerwise: bool,
        channel_base: int,
        channel_max: int,
        final_tanh: bool,
    ) -> None:
        super().__init__()
        self.source: str | None = None
        self.sha256: str | None = None
        self.architecture: dict[str, Any] = {
            "z_dim": z_dim,
            "w_dim": w_dim,
            "resolution": resolution,
            "img_channels": img_channels,
            "mapping_layers": mapping_layers,
            "layerwise": layerwise,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "final_tanh": final_tanh,
        }
        self.z_dim, self.w_dim, self.resolution = z_dim, w_dim, resolution
        self.num_ws = num_ws(resolution)
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            w_dim=w_dim,
            num_layers=mapping_layers,
            num_ws=self.num_ws if layerwise else 0,
        )
        self.synthesis = SynthesisNetwork(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            final_tanh=final_tanh,
        )

    @property
    def w_avg(self) -> Tensor:
        """Mean of w over z, [D]; the mean of layer 0 when the mapping is layer-wise."""
        return self.mapping.w_avg
