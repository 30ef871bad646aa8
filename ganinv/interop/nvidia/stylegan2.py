"""A StyleGAN2 generator in one file and plain PyTorch, which `ganinv export --to nvidia-pkl` writes
into its pickles: NVIDIA's loader runs the source that a pickle brings along, and this is that
source. It is ganinv's own, under ganinv's licence, and runs on Python 3.7 and torch 1.7 or newer.

Source of the method: Karras et al., arXiv 1912.04958 and 2006.06676. Classes, constructors'
arguments, attributes and state dict are called as in NVIDIA's stylegan2-ada-pytorch and stylegan3,
so that programs for their networks (PTI, DragGAN, legacy.py, style_mixing.py ...) find what they
look for. Differs from theirs in: everything is computed in the type of the weights, so
`num_fp16_res`, `force_fp32` and `fused_modconv` change nothing; the architecture is "skip".

    z [N,Z]   c [N,K]   ws [N,num_ws,D]   image [N,3,R,R] in about [-1,1]
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch_utils import persistence


def normalize_2nd_moment(x):
    """x [N,C] over the root mean square of its row."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def setup_filter(taps=(1.0, 3.0, 3.0, 1.0)):
    """[n] taps -> [n,n], summing to one."""
    f = torch.tensor(taps)
    f = f[:, None] * f[None, :]
    return f / f.sum()


def bias_act(x, b, act, gain, clamp):
    """x + b, leaky ReLU or nothing, times gain, clamped."""
    x = x + b.to(x.dtype).reshape([1, -1] + [1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, 0.2)
    x = x * gain if gain != 1 else x
    return x if clamp is None else x.clamp(-clamp, clamp)


def filter_map(x, f, padding, gain):
    """x [N,C,H,W] convolved with f [n,n] times gain, `padding` (before, after) on both axes."""
    channels = x.shape[1]
    kernel = (f * gain).flip((0, 1)).to(x.dtype)[None, None].repeat(channels, 1, 1, 1)
    x = F.pad(x, (padding[0], padding[1], padding[0], padding[1]))
    return F.conv2d(x, kernel, groups=channels)


def upsample2d(x, f):
    """[N,C,H,W] -> [N,C,2H,2W]."""
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height, 1, width, 1)
    x = F.pad(x, (0, 1, 0, 0, 0, 1)).reshape(n, channels, 2 * height, 2 * width)
    return filter_map(x, f, (2, 1), 4)


def modulated_conv2d(x, weight, styles, f=None, demodulate=True):
    """x [N,Ci,H,W] times styles [N,Ci], convolved with weight [Co,Ci,k,k]; with f [n,n] at twice
    the resolution."""
    y = x * styles.to(x.dtype)[:, :, None, None]
    if f is None:
        y = F.conv2d(y, weight.to(x.dtype), padding=weight.shape[-1] // 2)
    else:
        y = F.conv_transpose2d(y, weight.to(x.dtype).transpose(0, 1), stride=2)
        y = filter_map(y, f, (1, 1), 4)
    if demodulate:
        d = (styles.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()
        y = y * d.to(x.dtype)[:, :, None, None]
    return y


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
        x = x @ (self.weight.to(x.dtype) * self.weight_gain).t()
        gain = math.sqrt(2) if self.activation == "lrelu" else 1
        return bias_act(x, self.bias * self.bias_gain, self.activation, gain, None)


@persistence.persistent_class
class MappingNetwork(nn.Module):
    """z [N,Z], c [N,K] -> ws [N,num_ws,D]."""

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        num_ws,
        num_layers=8,
        layer_features=None,
        lr_multiplier=0.01,
        w_avg_beta=0.998,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        between = [layer_features or w_dim] * (num_layers - 1)
        widths = [z_dim + (w_dim if c_dim > 0 else 0), *between, w_dim]
        for i in range(num_layers):
            layer = FullyConnectedLayer(
                widths[i], widths[i + 1], "lrelu", lr_multiplier=lr_multiplier
            )
            setattr(self, "fc" + str(i), layer)
        self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(
        self,
        z,
        c=None,
        truncation_psi=1,
        truncation_cutoff=None,
        update_emas=False,
        skip_w_avg_update=True,
    ):
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
class SynthesisLayer(nn.Module):
    """x [N,Ci,h,h], w [N,D] -> [N,Co,R,R]."""

    def __init__(self, in_channels, out_channels, w_dim, resolution, up=1, conv_clamp=None):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.w_dim, self.resolution, self.up = w_dim, resolution, up
        self.use_noise, self.activation, self.conv_clamp = True, "lrelu", conv_clamp
        self.act_gain = math.sqrt(2)
        self.register_buffer("resample_filter", setup_filter())
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 3, 3]))
        self.register_buffer("noise_const", torch.randn([resolution, resolution]))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        """Convolution, noise, bias, leaky ReLU."""
        if noise_mode not in ("random", "const", "none"):
            raise ValueError("noise_mode " + repr(noise_mode) + "; expected random, const or none")
        f = self.resample_filter if self.up == 2 else None
        x = modulated_conv2d(x, self.weight, self.affine(w), f)
        if noise_mode == "random":
            size = [x.shape[0], 1, self.resolution, self.resolution]
            x = x + (torch.randn(size, device=x.device) * self.noise_strength).to(x.dtype)
        if noise_mode == "const":
            x = x + (self.noise_const * self.noise_strength).to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias, "lrelu", self.act_gain * gain, clamp)


@persistence.persistent_class
class ToRGBLayer(nn.Module):
    """x [N,C,R,R], w [N,D] -> [N,3,R,R]."""

    def __init__(self, in_channels, out_channels, w_dim, conv_clamp=None):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.w_dim, self.conv_clamp = w_dim, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x, w, fused_modconv=True):
        """Modulated 1x1 convolution."""
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return bias_act(x, self.bias, "linear", 1, self.conv_clamp)


@persistence.persistent_class
class SynthesisBlock(nn.Module):
    """One resolution: x [N,Ci,h,h] and image -> x [N,Co,R,R] and image [N,3,R,R]."""

    def __init__(
        self, in_channels, out_channels, w_dim, resolution, img_channels, is_last, conv_clamp=None
    ):
        super().__init__()
        self.in_channels, self.w_dim, self.resolution = in_channels, w_dim, resolution
        self.img_channels, self.is_last, self.architecture = img_channels, is_last, "skip"
        self.use_fp16, self.channels_last = False, False
        self.register_buffer("resample_filter", setup_filter())
        self.num_conv, self.num_torgb = 1 if in_channels == 0 else 2, 1
        more = {"w_dim": w_dim, "resolution": resolution, "conv_clamp": conv_clamp}
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **more)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **more)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp)

    def forward(
        self, x, img, ws, force_fp32=False, fused_modconv=None, update_emas=False, **layer_kwargs
    ):
        """ws [N,num_conv+num_torgb,D]."""
        styles = iter(ws.unbind(dim=1))
        if self.in_channels == 0:
            x = self.const.unsqueeze(0).repeat([ws.shape[0], 1, 1, 1])
        else:
            x = self.conv0(x, next(styles), **layer_kwargs)
        x = self.conv1(x, next(styles), **layer_kwargs)
        y = self.torgb(x, next(styles))
        return x, y if img is None else upsample2d(img, self.resample_filter) + y


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
        num_fp16_res=0,
        conv_clamp=None,
        fused_modconv_default=True,
        architecture="skip",
    ):
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.img_resolution_log2 = int(math.log2(img_resolution))
        self.num_fp16_res = num_fp16_res
        self.block_resolutions = [2**i for i in range(2, self.img_resolution_log2 + 1)]
        channels = {r: min(channel_base // r, channel_max) for r in self.block_resolutions}
        self.num_ws = 0
        for r in self.block_resolutions:
            last = r == img_resolution
            block = SynthesisBlock(
                channels[r // 2] if r > 4 else 0,
                channels[r],
                w_dim=w_dim,
                resolution=r,
                img_channels=img_channels,
                is_last=last,
                conv_clamp=conv_clamp,
            )
            self.num_ws += block.num_conv + (block.num_torgb if last else 0)
            setattr(self, "b" + str(r), block)

    def forward(self, ws, **block_kwargs):
        """Block by block; a block's torgb shares its style with the next block's conv0."""
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError("ws of shape " + str(tuple(ws.shape)))
        x, img, first = None, None, 0
        for r in self.block_resolutions:
            block = getattr(self, "b" + str(r))
            used = ws[:, first : first + block.num_conv + block.num_torgb].to(block.torgb.bias)
            x, img = block(x, img, used, **block_kwargs)
            first += block.num_conv
        return img


@persistence.persistent_class
class Generator(nn.Module):
    """z, c -> image. The synthesis network's arguments come flat, as in stylegan3, or as
    `synthesis_kwargs`, as in stylegan2-ada-pytorch."""

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        img_resolution,
        img_channels,
        mapping_kwargs=None,
        synthesis_kwargs=None,
        **more_synthesis_kwargs,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        synthesis = dict(synthesis_kwargs or {}, **more_synthesis_kwargs)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis)
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
