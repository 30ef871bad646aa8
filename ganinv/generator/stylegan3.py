"""StyleGAN3 generators, translation ("t") and rotation ("r") equivariant, conditional or not.

Source: Karras et al., "Alias-Free Generative Adversarial Networks", arXiv 2106.12423. The state
dict has the keys and shapes of the networks inside NVIDIA's `.pkl` files.

    z  [B,Z]    latent, N(0, I)          c  [B,K]  one-hot labels, K = c_dim (0: none)
    w  [B,D]    style                    wp [B,L,D], L = num_ws = num_layers + 2, at any resolution
    x  [B,C,s,s] the signal, sampled on the canvas and a margin around it

Layer 0 of wp places the Fourier features (rotation and translation), i + 1 styles layer i of G, the
last layer gives the image. t has 3x3 convolutions, r has 1x1 ones, twice the channels and radially
symmetric filters.

There is no noise input, so the noise modes change nothing; and no feature map that a code f could
replace: the layers carry no spatial information but the Fourier features.

Differs from the released code in: the mapping leaves repeating and truncation to the caller;
modulated convolutions are un-fused; styles are brought to unit size image by image, not over the
batch, so an image does not depend on its neighbours; the running magnitudes are fixed, as in eval
mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.interface import Noise
from ganinv.core.op import Dense, full
from ganinv.core.op.filtered_lrelu import filtered_lrelu, lowpass_filter
from ganinv.generator.per_image import NoiseMaps, synthesize_changed
from ganinv.generator.stylegan2 import MappingNetwork, NoiseSource

FIRST_CUTOFF, FIRST_STOPBAND = 2.0, 2**2.1  # cycles over the canvas, of the Fourier features
LAST_STOPBAND = 2**0.3  # of the last layer, as a factor of its cutoff
TAPS = 6  # of a low-pass filter, times the resampling factor
OVERSAMPLING = 2  # of the leaky ReLU
OUTPUT_SCALE = 0.25  # of the last layer, which is trained at about four times the image's range


@dataclass(frozen=True)
class Signal:
    """What the output of one layer is: band limits in cycles over the canvas, samples, channels."""

    cutoff: float
    half_width: float  # of the transition band
    rate: int  # samples over the canvas
    size: int  # px, with the margin
    channels: int


def schedule(
    *,
    resolution: int,
    img_channels: int,
    channel_base: int,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    margin_size: int,
) -> list[Signal]:
    """The signals after layers 0 ... num_layers: bands grow geometrically up to resolution / 2,
    which the last `num_critical` layers fill without a guard band."""
    last = resolution / 2
    progress = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    cutoffs = FIRST_CUTOFF * (last / FIRST_CUTOFF) ** progress
    stopbands = FIRST_STOPBAND * (last * LAST_STOPBAND / FIRST_STOPBAND) ** progress
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + margin_size * 2
    sizes[-2:] = resolution
    channels = np.rint(np.minimum(channel_base / 2 / cutoffs, channel_max))
    channels[-1] = img_channels
    return [
        Signal(float(cutoff), float(half), int(rate), int(size), int(count))
        for cutoff, half, rate, size, count in zip(
            cutoffs, half_widths, rates, sizes, channels, strict=True
        )
    ]


class SynthesisInput(nn.Module):
    """w [B,D] -> Fourier features x [B,C,s,s], rotated and shifted by an affine map of w.

    Args:
        signal: what to produce.
        w_dim: D.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, signal: Signal, *, w_dim: int) -> None:
        super().__init__()
        self.signal, channels = signal, signal.channels
        freqs = torch.randn(channels, 2)  # made uniform over the disc of radius `cutoff`
        squared = freqs.square().sum(1, keepdim=True)
        freqs = freqs / (squared.sqrt() * squared.exp().pow(0.25)) * signal.cutoff
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Dense(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("transform", torch.eye(3))  # of the whole image, free to set
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def motion(self, w: Tensor) -> Tensor:
        """w [B,D] -> [B,3,3], from canvas coordinates to those of the features."""
        t = self.affine(w)  # (r_c, r_s, t_x, t_y)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        c, s, x, y = t.unbind(1)
        zero, one = torch.zeros_like(c), torch.ones_like(c)
        rotation = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], 1).unflatten(1, (3, 3))
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1).unflatten(1, (3, 3))
        return rotation @ shift @ self.transform.to(t.dtype)

    def forward(self, w: Tensor) -> Tensor:
        """sin(2 pi (k . p + phase)) at every sample p, mixed by one linear layer."""
        with torch.autocast(w.device.type, enabled=False):
            motion = self.motion(full(w))
            k = self.freqs.to(motion.dtype) @ motion[:, :2, :2]  # [B,C,2]
            phases = self.phases + (self.freqs.to(motion.dtype) @ motion[:, :2, 2:]).squeeze(2)
            # a frequency that a transform lifts out of the band fades away
            cutoff, nyquist = self.signal.cutoff, self.signal.rate / 2
            fading = (1 - (k.norm(dim=2) - cutoff) / (nyquist - cutoff)).clamp(0, 1)
            size, rate = self.signal.size, self.signal.rate
            p = torch.arange(size, dtype=k.dtype, device=k.device)
            p = (p + 0.5 - size / 2) / rate  # the canvas is [-0.5, 0.5]
            x, y = k[:, :, :1] * p, k[:, :, 1:] * p  # [B,C,s]
            angle = y[:, :, :, None] + x[:, :, None, :] + phases[:, :, None, None]
            features = torch.sin(angle * (2 * math.pi)) * fading[:, :, None, None]
            weight = full(self.weight) / math.sqrt(self.signal.channels)
            return torch.einsum("oc,bchw->bohw", weight, features)


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU, from one signal to the next.

    Args:
        before: the signal that comes in.
        after: the signal that goes out.
        w_dim: D.
        kernel: side of the convolution.
        critical: whether `after` fills its band; then its filter is separable, never radial.
        radial: whether the other layers' filters are radially symmetric.
        torgb: the last layer: linear, without demodulation.
        clamp: largest magnitude of an activation.
    """

    up_filter: Tensor | None
    down_filter: Tensor | None
    magnitude_ema: Tensor

    def __init__(
        self,
        before: Signal,
        after: Signal,
        *,
        w_dim: int,
        kernel: int,
        critical: bool,
        radial: bool,
        torgb: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.torgb, self.clamp = torgb, clamp
        self.affine = Dense(w_dim, before.channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        rate = max(before.rate, after.rate) * (1 if torgb else OVERSAMPLING)
        self.up, self.down = rate // before.rate, rate // after.rate
        up_taps = TAPS * self.up if self.up > 1 and not torgb else 1
        down_taps = TAPS * self.down if self.down > 1 and not torgb else 1
        up_filter = lowpass_filter(
            up_taps, cutoff=before.cutoff, width=2 * before.half_width, rate=rate
        )
        down_filter = lowpass_filter(
            down_taps,
            cutoff=after.cutoff,
            width=2 * after.half_width,
            rate=rate,
            radial=radial and not critical,
        )
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)
        # what the map must measure ahead of the downsampling, less what convolution and filters
        # leave of it; half a sample of the upsampling goes to the front
        total = (after.size - 1) * self.down + 1 - (before.size + kernel - 1) * self.up
        total += up_taps + down_taps - 2
        self.padding = ((total + self.up) // 2, total - (total + self.up) // 2)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [B,Ci,s,s], w [B,D] -> [B,Co,s',s']."""
        styles, weight = self.affine(w), full(self.weight)
        with torch.autocast(x.device.type, enabled=False):
            if self.torgb:
                styles = styles / math.sqrt(weight[0].numel())
            else:
                weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
                styles = styles * styles.square().mean(1, keepdim=True).rsqrt()
                d = (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
            gain = full(self.magnitude_ema).rsqrt()
        x = x * (styles * gain).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] - 1)
        if not self.torgb:
            x = x * d.to(x.dtype)[:, :, None, None]
        return filtered_lrelu(
            x,
            self.bias,
            up_filter=self.up_filter,
            down_filter=self.down_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            gain=1.0 if self.torgb else math.sqrt(2),
            slope=1.0 if self.torgb else 0.2,
            clamp=self.clamp,
        )


class SynthesisNetwork(nn.Module):
    """wp [B,L,D] -> image [B,3,R,R] in about [-1,1], not clamped.

    Args:
        w_dim: D.
        resolution: R in px.
        img_channels: 3 for RGB.
        channel_base: a layer has about channel_base / (2 * cutoff) channels, at most channel_max.
        channel_max: the most channels of any layer.
        num_layers: layers ahead of the last one.
        num_critical: of these, the last ones, which fill their band.
        margin_size: px around the canvas, at each layer's rate.
        conv_kernel: side of the convolutions: 3 (t) or 1 (r).
        use_radial_filters: whether the filters are radially symmetric (r).
        conv_clamp: largest magnitude of an activation.
    """

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        num_layers: int,
        num_critical: int,
        margin_size: int,
        conv_kernel: int,
        use_radial_filters: bool,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.w_dim, self.resolution, self.num_ws = w_dim, resolution, num_layers + 2
        signals = schedule(
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            num_layers=num_layers,
            num_critical=num_critical,
            margin_size=margin_size,
        )
        self.input = SynthesisInput(signals[0], w_dim=w_dim)
        self.layer_names: list[str] = []
        for i, after in enumerate(signals):
            layer = SynthesisLayer(
                signals[max(i - 1, 0)],
                after,
                w_dim=w_dim,
                kernel=1 if i == num_layers else conv_kernel,
                critical=i >= num_layers - num_critical,
                radial=use_radial_filters,
                torgb=i == num_layers,
                clamp=conv_clamp,
            )
            self.layer_names.append(f"L{i}_{after.size}_{after.channels}")
            setattr(self, self.layer_names[-1], layer)

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
            f: must be None.
            noise: any mode, but no maps; there is no noise input.
            seeds: not used, for the same reason.
            weights: changes of the weights, image by image: see `generator/per_image.py`.

        Raises:
            ValueError: wp has other than L layers of D; an f; maps or an unknown mode of noise;
                weights of other names.
        """
        NoiseSource(noise, seeds, self, wp.shape[0])
        if f is not None:
            raise ValueError(
                f"f of shape {tuple(f.shape)} for a StyleGAN3; expected no f: its layers have no "
                "feature map that fixes where things are. Use a StyleGAN (v1) or StyleGAN2"
            )
        if wp.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(
                f"wp of shape {tuple(wp.shape)}; expected [B,{self.num_ws},{self.w_dim}] for this "
                f"{self.resolution} px generator"
            )
        if weights:
            return synthesize_changed(self, wp, weights, f, noise)
        return self.run_layers(wp)

    def run_layers(self, wp: Tensor) -> Tensor:
        """`forward` on checked arguments: layers alone, which a compiler may take as one graph."""
        x = self.input(wp[:, 0])
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, wp[:, i + 1])
        return full(x) * OUTPUT_SCALE


class StyleGAN3Generator(nn.Module):
    """z -> w -> wp -> image. `architecture` holds the arguments that build an equal network;
    `source` and `sha256` say which file its weights came from, if any.

    Args:
        z_dim: width of z.
        c_dim: number of classes, 0 when unconditional.
        w_dim: width of w.
        resolution: side of the image in px.
        img_channels: 3 for RGB.
        mapping_layers: dense layers of the mapping network.
        channel_base, channel_max, num_layers, num_critical, margin_size, conv_kernel,
            use_radial_filters, conv_clamp: as `SynthesisNetwork`.
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
        num_layers: int,
        num_critical: int,
        margin_size: int,
        conv_kernel: int,
        use_radial_filters: bool,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.source: str | None = None
        self.sha256: str | None = None
        synthesis: dict[str, Any] = {
            "w_dim": w_dim,
            "resolution": resolution,
            "img_channels": img_channels,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "num_layers": num_layers,
            "num_critical": num_critical,
            "margin_size": margin_size,
            "conv_kernel": conv_kernel,
            "use_radial_filters": use_radial_filters,
            "conv_clamp": conv_clamp,
        }
        self.architecture: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "mapping_layers": mapping_layers,
            **synthesis,
        }
        self.z_dim, self.c_dim, self.w_dim, self.resolution = z_dim, c_dim, w_dim, resolution
        self.mapping = MappingNetwork(
            z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_layers=mapping_layers
        )
        self.synthesis = SynthesisNetwork(**synthesis)
        self.num_ws = self.synthesis.num_ws

    @property
    def w_avg(self) -> Tensor:
        """Mean of w over z, [D]."""
        return self.mapping.w_avg
