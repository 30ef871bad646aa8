"""StyleGAN2 and StyleGAN2-ADA generators, conditional or not (skip architecture, "config f").

Source: Karras et al., arXiv 1912.04958 (StyleGAN2) and arXiv 2006.06676 (StyleGAN2-ADA). The state
dict has the keys and shapes of the networks inside NVIDIA's `.pkl` files, so those load as they
are; `importer/rosinality.py` maps the other common layout.

    z  [B,Z]      latent, N(0, I)             c  [B,K]  one-hot labels, K = c_dim (0: none)
    w  [B,D]      style                       wp [B,L,D], L = num_ws = 2*log2(R) - 2
    f  [B,C,h,h]  replaces the output of the up-convolution of block b{h}; the RGB image of the
                  coarser blocks is dropped (BDInvert, arXiv 2108.08998)

Layers of wp: b4 uses 0 (conv1) and 1 (torgb); block b{2^k} uses 2k-5 (conv0), 2k-4 (conv1),
2k-3 (torgb): that of a torgb is also that of the next block's conv0.

Differs from the released code in: the mapping returns w [B,D] and leaves repeating and truncation
to the caller; modulated convolutions are un-fused unless asked; noise may be seeded image by
image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganinv.core.interface import Noise
from ganinv.core.latent import num_ws
from ganinv.core.op import (
    Dense,
    Scaled,
    bias_act,
    full,
    mix_channels,
    modulated_layer,
    setup_filter,
    upsample2d,
)
from ganinv.generator.per_image import (
    NoiseMaps,
    check_noise,
    random_maps,
    stored_maps,
    synthesize_changed,
)


def normalize(x: Tensor) -> Tensor:
    """x [B,C] divided by the root mean square of each sample."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class NoiseSource:
    """Hands each layer its noise map, per the mode; `seeds` makes the random mode repeatable.

    Args:
        mode: "const" (the stored map), "none", "random" (N(0,1), new at each call), or maps of each
            image by the name of G's buffer (`per_image.py`); layers without any have the stored.
        seeds: one integer an image; image i then depends on `seeds[i]` alone, on any device and in
            any batch, and the maps of all layers are drawn at once. None draws from torch's global
            state.
        network: the synthesis network, needed with maps or seeds.
        batch: B, needed with maps.
    """

    def __init__(
        self,
        mode: Noise | NoiseMaps,
        seeds: Sequence[int] | None,
        network: nn.Module | None = None,
        batch: int = 1,
    ) -> None:
        self.maps: dict[str, Tensor] = {}  # by name, which a compiler's cache finds again
        if not isinstance(mode, str):
            assert network is not None
            self.maps, mode = check_noise(mode, network, batch), "const"
        if mode not in ("const", "none", "random"):
            raise ValueError(f"noise mode {mode!r}; expected 'const', 'none' or 'random'")
        self.mode = mode
        if mode == "random" and seeds is not None:
            assert network is not None
            self.maps = random_maps(network, seeds)
        names = stored_maps(network) if network is not None and self.maps else {}
        self._name_of = {id(stored): name for name, stored in names.items()}

    def map(self, const: Tensor, x: Tensor) -> Tensor | None:
        """Noise for the activations x [B,C,R,R]: [R,R], [B,1,R,R] or None."""
        if self.mode == "none":
            return None
        if self.mode == "const" or self.maps:
            return self.maps.get(self._name_of.get(id(const), ""), const)
        return torch.randn(x.shape[0], 1, *const.shape, device=x.device)


class MappingNetwork(nn.Module):
    """z [B,Z] (and c [B,K]) -> w [B,D]: normalise, then `num_layers` dense layers.

    Args:
        z_dim: Z; 0 for a label-only mapping, as a conditional discriminator has.
        c_dim: K, 0 when unconditional.
        w_dim: D.
        num_layers: dense layers, each with leaky ReLU.
        width: features between two of them; None: D.
        lr_mul: their learning rate, as a factor.
        track_w_avg: whether there is a `w_avg` buffer.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_layers: int,
        width: int | None = None,
        lr_mul: float = 0.01,
        track_w_avg: bool = True,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_layers = z_dim, c_dim, num_layers
        if c_dim > 0:
            self.embed = Dense(c_dim, w_dim)
        between = [width or w_dim] * (num_layers - 1)
        widths = [z_dim + (w_dim if c_dim > 0 else 0), *between, w_dim]
        for i in range(num_layers):
            setattr(self, f"fc{i}", Dense(widths[i], widths[i + 1], "lrelu", lr_mul))
        if track_w_avg:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """z [B,Z], c [B,K] -> w [B,D]. A conditional network refuses to run without c."""
        parts = [] if self.z_dim == 0 or z is None else [normalize(full(z))]
        if self.c_dim > 0:
            if c is None:
                raise ValueError(
                    f"this generator is conditional (c_dim={self.c_dim}) and was given no label; "
                    f"expected c [B,{self.c_dim}], one-hot"
                )
            parts.append(normalize(self.embed(c)))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU: x [B,Ci,h,h], w [B,D] -> [B,Co,R,R].

    x and the result are `Scaled`: what a layer multiplies by last, the next one multiplies with its
    style.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self, ci: int, co: int, *, w_dim: int, resolution: int, up: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.up, self.clamp, self.fused = up, clamp, False
        self.affine = Dense(w_dim, ci, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(co, ci, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(co))
        self.register_buffer("resample_filter", setup_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Scaled, w: Tensor, noise: NoiseSource) -> Scaled:
        """One layer; the noise map is added before the bias."""
        noise_map = noise.map(self.noise_const, x.u)
        return modulated_layer(
            x, self.weight, self.affine(w), self.bias, noise_map, self.noise_strength,
            f=self.resample_filter, up=self.up, fused=self.fused, clamp=self.clamp,
        )  # fmt: skip


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: x [B,C,R,R], w [B,D] -> [B,3,R,R]."""

    def __init__(
        self, channels: int, img_channels: int, *, w_dim: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = Dense(w_dim, channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(img_channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.gain = 1 / math.sqrt(channels)

    def forward(self, x: Scaled, w: Tensor) -> Tensor:
        """The style is a factor of the small weight. The image is summed over resolutions, so it is
        returned in float32."""
        styles = self.affine(w) * self.gain
        styles = styles if x.scale is None else styles * x.scale
        weight = (self.weight[:, :, 0, 0] * styles[:, None]).to(x.u.dtype)  # [B,3,C]
        return bias_act(full(mix_channels(x.u, weight)), self.bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution: (conv0 with upsampling,) conv1, and its share of the RGB image."""

    resample_filter: Tensor

    def __init__(
        self,
        ci: int,
        co: int,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", setup_filter())
        self.resolution = resolution
        layer: dict[str, Any] = {"w_dim": w_dim, "resolution": resolution, "clamp": clamp}
        if ci == 0:
            self.const = nn.Parameter(torch.randn(co, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(ci, co, up=2, **layer)
        self.conv1 = SynthesisLayer(co, co, up=1, **layer)
        self.torgb = ToRGB(co, img_channels, w_dim=w_dim, clamp=clamp)

    def enter(self, x: Scaled | None, w: Tensor, noise: NoiseSource) -> Scaled:
        """The map that conv1 reads: the constant (b4) or the up-convolved x with style w."""
        if x is None:
            return Scaled(self.const.unsqueeze(0).expand(w.shape[0], -1, -1, -1))
        made: Scaled = self.conv0(x, w, noise)
        return made

    def finish(
        self, x: Scaled, image: Tensor | None, w1: Tensor, w_rgb: Tensor, noise: NoiseSource
    ) -> tuple[Scaled, Tensor]:
        """conv1 with style w1, then image = upsample(image) + torgb(x, w_rgb)."""
        x = self.conv1(x, w1, noise)
        rgb = self.torgb(x, w_rgb)
        if image is not None:
            rgb = upsample2d(image, self.resample_filter) + rgb
        return x, rgb


class SynthesisNetwork(nn.Module):
    """wp [B,L,D] (and f [B,C,h,h]) -> image [B,3,R,R] in about [-1,1], not clamped.

    Args:
        w_dim: D.
        resolution: R in px, a power of two of at least 8.
        img_channels: 3 for RGB.
        channel_base: the block at R has min(channel_base / R, channel_max) channels.
        channel_max: the most channels of any block.
        conv_clamp: largest magnitude of an activation, after its gain; None for no clamp.
    """

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.w_dim, self.resolution, self.num_ws = w_dim, resolution, num_ws(resolution)
        self.block_sizes = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        self.channels = {r: min(channel_base // r, channel_max) for r in self.block_sizes}
        for r in self.block_sizes:
            block = SynthesisBlock(
                self.channels[r // 2] if r > 4 else 0,
                self.channels[r],
                w_dim=w_dim,
                resolution=r,
                img_channels=img_channels,
                clamp=conv_clamp,
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
            f: [B,C,h,h] with h a block size above 4: starts at b{h}.conv1; layers of wp below
                2*log2(h) - 4 are then not read.
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
        image, x = None, None
        for r in self.block_sizes[self.block_sizes.index(start) :]:
            block, k = getattr(self, f"b{r}"), 2 * int(math.log2(r))
            given = f if r == start else None
            x = Scaled(given) if given is not None else block.enter(x, wp[:, max(k - 5, 0)], noise)
            x, image = block.finish(x, image, wp[:, k - 4], wp[:, k - 3], noise)
        assert image is not None
        return image

    def _block_of(self, f: Tensor) -> int:
        size = f.shape[-1]
        shapes = [(self.channels[r], r, r) for r in self.block_sizes[1:]]
        if tuple(f.shape[1:]) not in shapes:
            raise ValueError(f"f of shape {tuple(f.shape)}; expected [B,*] with * one of {shapes}")
        return size


class StyleGAN2Generator(nn.Module):
    """z -> w -> wp -> image. `architecture` holds the arguments that build an equal network;
    `source` and `sha256` say which file its weights came from, if any.

    Args:
        z_dim: width of z.
        c_dim: number of classes, 0 when unconditional.
        w_dim: width of w.
        resolution: side of the image in px.
        img_channels: 3 for RGB.
        mapping_layers: dense layers of the mapping network.
        channel_base: see `SynthesisNetwork`.
        channel_max: see `SynthesisNetwork`.
        conv_clamp: see `SynthesisNetwork`.
        mapping_width: features between two of those layers (NVIDIA's layer_features); None: w_dim.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None,
        mapping_width: int | None = None,
    ) -> None:
        super().__init__()
        self.source: str | None = None
        self.sha256: str | None = None
        self.architecture: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "w_dim": w_dim,
            "resolution": resolution,
            "img_channels": img_channels,
            "mapping_layers": mapping_layers,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "conv_clamp": conv_clamp,
            "mapping_width": mapping_width,
        }
        self.z_dim, self.c_dim, self.w_dim, self.resolution = z_dim, c_dim, w_dim, resolution
        self.mapping = MappingNetwork(
            z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_layers=mapping_layers, width=mapping_width
        )
        self.synthesis = SynthesisNetwork(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
        )
        self.num_ws = self.synthesis.num_ws

    @property
    def w_avg(self) -> Tensor:
        """Mean of w over z, [D]."""
        return self.mapping.w_avg

    def set_fused(self, fused: bool) -> None:
        """Choose the form of every modulated 3x3 convolution (`core/op/modulated_conv.py`)."""
        for module in self.modules():
            if isinstance(module, SynthesisLayer):
                module.fused = fused
