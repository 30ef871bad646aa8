"""A StyleGAN3 generator in one file and plain PyTorch, which `ganinv export --to nvidia-pkl` writes
into its pickles: NVIDIA's loader runs the source that a pickle brings along, and this is that
source. It is ganinv's own, under ganinv's licence, and runs on Python 3.7 and torch 1.7 or newer.

Source of the method: Karras et al., arXiv 2106.12423. Classes, constructors' arguments, attributes
and state dict are called as in NVIDIA's stylegan3, so that programs for their networks (PTI,
DragGAN, legacy.py, the visualizer ...) find what they look for. Differs from theirs in: everything
is computed in the type of the weights, so `num_fp16_res` and `force_fp32` change nothing; styles
are brought to unit size image by image, so that an image does not depend on its batch; running
magnitudes stay as they are.

    z [N,Z]   c [N,K]   ws [N,num_ws,D]   image [N,3,R,R] in about [-1,1]
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_utils import persistence


def normalize_2nd_moment(x):
    """x [N,C] over the root mean square of its row."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def bessel_j1(x):
    """The Bessel function of the first kind and order 1, by its integral over [0, pi]."""
    steps = 4096
    t = (np.arange(steps) + 0.5) * (np.pi / steps)
    flat = [np.cos(t - v * np.sin(t)).mean() for v in np.asarray(x).ravel()]
    return np.array(flat).reshape(np.shape(x))


def lowpass_filter(taps, cutoff, width, rate, radial=False):
    """A Kaiser-windowed low-pass filter, [n] or radially [n,n]; None of one tap."""
    if taps == 1:
        return None
    nyquist = rate / 2
    attenuation = 2.285 * (taps - 1) * np.pi * (width / nyquist) + 7.95
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    window = np.kaiser(taps, beta)
    t = np.arange(taps) - (taps - 1) / 2
    if radial:
        r = np.hypot(*np.meshgrid(t, t)) / rate * np.pi
        f = bessel_j1(2 * cutoff * r) / r * np.outer(window, window)
    else:
        f = np.sinc(cutoff / nyquist * t) * window
    return torch.as_tensor(f / f.sum(), dtype=torch.float32)


def filter_axes(x, f, up, down, padding):
    """Zeros between the pixels of x [N,C,H,W] for `up`, padding (before, after; negative crops) on
    both axes, f, every `down`-th pixel; times up squared."""
    n, channels, height, width = x.shape
    if up > 1:
        x = x.reshape(n, channels, height, 1, width, 1)
        x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(n, channels, height * up, width * up)
    x = F.pad(x, (padding[0], padding[1], padding[0], padding[1]))
    f = (f * float(up) ** f.ndim).to(x.dtype)
    kernels = [f.flip((0, 1))] if f.ndim == 2 else [f.flip(0)[:, None], f.flip(0)[None]]
    for kernel in kernels:
        x = F.conv2d(x, kernel[None, None].repeat(channels, 1, 1, 1), groups=channels)
    return x[:, :, ::down, ::down]


@persistence.persistent_class
class FullyConnectedLayer(nn.Module):
    """x [N,in] -> [N,out]."""

    def __init__(
        self, in_features, out_features, activation="linear", lr_multiplier=1, bias_init=0
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.activation = activation
        self.weight = nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init) / lr_multiplier))
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(in_features), lr_multiplier

    def forward(self, x):
        """act(x W^T + b)."""
        x = x @ (self.weight.to(x.dtype) * self.weight_gain).t() + self.bias * self.bias_gain
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activation == "lrelu" else x


@persistence.persistent_class
class MappingNetwork(nn.Module):
    """z [N,Z], c [N,K] -> ws [N,num_ws,D]."""

    def __init__(
        self, z_dim, c_dim, w_dim, num_ws, num_layers=2, lr_multiplier=0.01, w_avg_beta=0.998
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim > 0 else 0)
        for i in range(num_layers):
            layer = FullyConnectedLayer(
                width if i == 0 else w_dim, w_dim, "lrelu", lr_multiplier=lr_multiplier
            )
            setattr(self, "fc" + str(i), layer)
        self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        """ws; towards w_avg by truncation_psi in the layers below truncation_cutoff."""
        x = normalize_2nd_moment(z.to(self.w_avg.dtype))
        if self.c_dim > 0:
            x = torch.cat([x, normalize_2nd_moment(self.embed(c.to(self.w_avg.dtype)))], dim=1)
        for i in range(self.num_layers):
            x = getattr(self, "fc" + str(i))(x)
        if update_emas:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        x = x.unsqueeze(1).repeat([1, self.num_ws, 1])
        if truncation_psi != 1:
            last = self.num_ws if truncation_cutoff is None else truncation_cutoff
            x[:, :last] = self.w_avg.lerp(x[:, :last], truncation_psi)
        return x


@persistence.persistent_class
class SynthesisInput(nn.Module):
    """w [N,D] -> Fourier features [N,C,s,s]."""

    def __init__(self, w_dim, channels, size, sampling_rate, bandwidth):
        super().__init__()
        self.w_dim, self.channels, self.size = w_dim, channels, np.array([int(size)] * 2)
        self.sampling_rate, self.bandwidth = sampling_rate, bandwidth
        freqs = torch.randn([channels, 2])
        radii = freqs.square().sum(dim=1, keepdim=True).sqrt()
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * bandwidth
        self.weight = nn.Parameter(torch.randn([channels, channels]))
        self.affine = FullyConnectedLayer(w_dim, 4)
        self.register_buffer("transform", torch.eye(3, 3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand([channels]) - 0.5)

    def forward(self, w):
        """Rotated and shifted by w and by `transform`."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        rotation = torch.eye(3, device=w.device).to(t.dtype).repeat([w.shape[0], 1, 1])
        rotation[:, 0, 0], rotation[:, 0, 1] = t[:, 0], -t[:, 1]
        rotation[:, 1, 0], rotation[:, 1, 1] = t[:, 1], t[:, 0]
        shift = torch.eye(3, device=w.device).to(t.dtype).repeat([w.shape[0], 1, 1])
        shift[:, 0, 2], shift[:, 1, 2] = -t[:, 2], -t[:, 3]
        motion = rotation @ shift @ self.transform.to(t.dtype)
        k = self.freqs.to(t.dtype) @ motion[:, :2, :2]  # [N,C,2]
        phases = self.phases + (self.freqs.to(t.dtype) @ motion[:, :2, 2:]).squeeze(2)
        nyquist = self.sampling_rate / 2
        fading = 1 - (k.norm(dim=2) - self.bandwidth) / (nyquist - self.bandwidth)
        size = int(self.size[0])
        p = torch.arange(size, device=w.device).to(t.dtype)
        p = (p + 0.5 - size / 2) / self.sampling_rate
        angle = (k[:, :, 1:] * p)[:, :, :, None] + (k[:, :, :1] * p)[:, :, None, :]
        x = torch.sin((angle + phases[:, :, None, None]) * (2 * math.pi))
        x = x * fading.clamp(0, 1)[:, :, None, None]
        weight = self.weight / math.sqrt(self.channels)
        return torch.einsum("oc,nchw->nohw", weight, x)


@persistence.persistent_class
class SynthesisLayer(nn.Module):
    """x [N,Ci,s,s], w [N,D] -> [N,Co,s',s']."""

    def __init__(
        self,
        w_dim,
        is_torgb,
        is_critically_sampled,
        in_channels,
        out_channels,
        in_size,
        out_size,
        in_sampling_rate,
        out_sampling_rate,
        in_cutoff,
        out_cutoff,
        in_half_width,
        out_half_width,
        conv_kernel,
        filter_size,
        lrelu_upsampling,
        use_radial_filters,
        conv_clamp,
    ):
        super().__init__()
        self.w_dim, self.is_torgb = w_dim, is_torgb
        self.is_critically_sampled, self.use_fp16 = is_critically_sampled, False
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_size, self.out_size = np.array([in_size] * 2), np.array([out_size] * 2)
        self.in_sampling_rate, self.out_sampling_rate = in_sampling_rate, out_sampling_rate
        self.in_cutoff, self.out_cutoff = in_cutoff, out_cutoff
        self.in_half_width, self.out_half_width = in_half_width, out_half_width
        self.conv_kernel = 1 if is_torgb else conv_kernel
        self.conv_clamp = conv_clamp
        rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.tmp_sampling_rate = rate
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        side = self.conv_kernel
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, side, side]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.up_factor, self.down_factor = rate // in_sampling_rate, rate // out_sampling_rate
        self.up_taps = filter_size * self.up_factor if self.up_factor > 1 and not is_torgb else 1
        self.down_taps = 1
        if self.down_factor > 1 and not is_torgb:
            self.down_taps = filter_size * self.down_factor
        self.down_radial = use_radial_filters and not is_critically_sampled
        up = lowpass_filter(self.up_taps, in_cutoff, in_half_width * 2, rate)
        down = lowpass_filter(
            self.down_taps, out_cutoff, out_half_width * 2, rate, radial=self.down_radial
        )
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)
        total = (out_size - 1) * self.down_factor + 1 - (in_size + side - 1) * self.up_factor
        total += self.up_taps + self.down_taps - 2
        before = (total + self.up_factor) // 2
        self.padding = [before, total - before, before, total - before]

    def forward(self, x, w, noise_mode="random", force_fp32=False, update_emas=False):
        """Modulated convolution and filtered leaky ReLU; there is no noise."""
        styles, weight = self.affine(w), self.weight
        if self.is_torgb:
            styles = styles / math.sqrt(self.in_channels * self.conv_kernel**2)
        else:
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
            d = (styles.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()
        x = x * (styles * self.magnitude_ema.rsqrt()).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, weight.to(x.dtype), padding=self.conv_kernel - 1)
        x = x if self.is_torgb else x * d.to(x.dtype)[:, :, None, None]
        x = x + self.bias.to(x.dtype)[:, None, None]
        ends = self.padding[:2]
        if self.up_filter is None:
            x = F.pad(x, (ends[0], ends[1], ends[0], ends[1]))
        else:
            x = filter_axes(x, self.up_filter, self.up_factor, 1, ends)
        if not self.is_torgb:
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        x = x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
        if self.down_filter is not None:
            x = filter_axes(x, self.down_filter, 1, self.down_factor, (0, 0))
        return x


@persistence.persistent_class
class SynthesisNetwork(nn.Module):
    """ws [N,num_ws,D] -> image [N,3,R,R]."""

    def __init__(
        self,
        w_dim,
        img_resolution,
        img_channels,
        channel_base=32768,
        channel_max=512,
        num_layers=14,
        num_critical=2,
        first_cutoff=2,
        first_stopband=2**2.1,
        last_stopband_rel=2**0.3,
        margin_size=10,
        output_scale=0.25,
        num_fp16_res=0,
        conv_kernel=3,
        filter_size=6,
        lrelu_upsampling=2,
        use_radial_filters=False,
        conv_clamp=256,
        magnitude_ema_beta=0.999,
    ):
        super().__init__()
        self.w_dim, self.num_ws, self.img_resolution = w_dim, num_layers + 2, img_resolution
        self.img_channels, self.num_layers = img_channels, num_layers
        self.num_critical = num_critical
        self.margin_size, self.output_scale = margin_size, output_scale
        self.num_fp16_res = num_fp16_res
        last = img_resolution / 2
        progress = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
        cutoffs = first_cutoff * (last / first_cutoff) ** progress
        stopbands = first_stopband * (last * last_stopband_rel / first_stopband) ** progress
        rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, img_resolution))))
        half_widths = np.maximum(stopbands, rates / 2) - cutoffs
        sizes = rates + margin_size * 2
        sizes[-2:] = img_resolution
        channels = np.rint(np.minimum(channel_base / 2 / cutoffs, channel_max))
        channels[-1] = img_channels
        rates, sizes = [int(v) for v in rates], [int(v) for v in sizes]
        channels = [int(v) for v in channels]
        cutoffs, half_widths = [float(v) for v in cutoffs], [float(v) for v in half_widths]
        self.input = SynthesisInput(w_dim, channels[0], sizes[0], rates[0], cutoffs[0])
        self.layer_names = []
        for i in range(num_layers + 1):
            j = max(i - 1, 0)
            layer = SynthesisLayer(
                w_dim=w_dim,
                is_torgb=i == num_layers,
                is_critically_sampled=i >= num_layers - num_critical,
                in_channels=channels[j],
                out_channels=channels[i],
                in_size=sizes[j],
                out_size=sizes[i],
                in_sampling_rate=rates[j],
                out_sampling_rate=rates[i],
                in_cutoff=cutoffs[j],
                out_cutoff=cutoffs[i],
                in_half_width=half_widths[j],
                out_half_width=half_widths[i],
                conv_kernel=conv_kernel,
                filter_size=filter_size,
                lrelu_upsampling=lrelu_upsampling,
                use_radial_filters=use_radial_filters,
                conv_clamp=conv_clamp,
            )
            name = f"L{i}_{sizes[i]}_{channels[i]}"
            setattr(self, name, layer)
            self.layer_names.append(name)

    def forward(self, ws, **layer_kwargs):
        """Layer by layer."""
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError("ws of shape " + str(tuple(ws.shape)))
        styles = ws.to(self.input.weight.dtype).unbind(dim=1)
        x = self.input(styles[0])
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, styles[i + 1], **layer_kwargs)
        return x * self.output_scale


@persistence.persistent_class
class Generator(nn.Module):
    """z, c -> image."""

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        img_resolution,
        img_channels,
        mapping_kwargs=None,
        **synthesis_kwargs,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        more = dict(synthesis_kwargs)
        more.update(more.pop("synthesis_kwargs", {}))
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **more)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self,
        z,
        c=None,
        truncation_psi=1,
        truncation_cutoff=None,
        update_emas=False,
        **synthesis_kwargs,
    ):
        """An image for each z."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, **synthesis_kwargs)


@persistence.persistent_class
class Discriminator(nn.Module):
    """Stands where NVIDIA's loader wants a discriminator: the exported model has none."""

    def __init__(self, **arguments):
        super().__init__()

    def forward(self, img, c=None, **arguments):
        """There is nothing to ask."""
        raise RuntimeError("this file was exported without a discriminator; it holds G_ema alone")
