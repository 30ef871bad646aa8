"""Images per second of a pSp and an e4e training step, against a loop written as the released ones.

    python benchmarks/train_step.py                64 px, batch 16, the small trunk
    python benchmarks/train_step.py --size ffhq    256 px, batch 2, IR-SE50, a 1024-px generator

Rows, all fp32, on the same images, in one run whose rounds take turns:

    plain      the step as the released trainers take it: fused modulated convolution; pSp's
               generator collects weight gradients; e4e encodes the batch a second time for its
               discriminator; Ranger loops over parameters in Python; every loss is read out at
               every step; memory in torch's default layout
    fused      ganinv's step, Lightning's loop around it, with the fused modulated convolution
    un-fused   ganinv as it trains: frozen modulated convolutions by scaling input and output

Speed needs no trained weights: the `ffhq` networks are random, and say so. Medians over the steps.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ganinv.backbone.efficientnet_lite0 import efficientnet_lite0
from ganinv.core.image import to_unit
from ganinv.core.latent import repeat_w
from ganinv.core.safe.io import write_atomic
from ganinv.discriminator.latent import LatentDiscriminator
from ganinv.encoder.e4e import Encoder4Editing
from ganinv.encoder.psp import GradualStyleEncoder
from ganinv.generator.importer.load import load_generator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.loss.latent import Delta, LatentAdversarial
from ganinv.loss.perceptual import Perceptual
from ganinv.loss.pixel import L2
from ganinv.loss.term import Terms, total
from ganinv.method.e4e import E4E
from ganinv.method.idinvert import IDInvert
from ganinv.method.inverting import EncoderMethod
from ganinv.method.psp import PSp
from ganinv.optimizer.ranger import Ranger
from ganinv.task.image import Image
from ganinv.trainer.quiet import quieten

RANGER = {"lr": 1e-4, "alpha": 0.5, "k": 6, "betas": (0.95, 0.999)}
RANGER |= {"n_sma_threshold": 5, "eps": 1e-5, "weight_decay": 0.0}


def build(name: str, size: str, fused: bool) -> EncoderMethod:
    """A method with fresh networks."""
    torch.manual_seed(0)
    if size == "avatars":
        generator = load_generator(
            weights="stylegan2_avatars64", resolution=64, kind=None, origin=None
        )
        trunk, side = "ir_se_small", 64
    else:
        generator = StyleGAN2Generator(
            z_dim=512,
            c_dim=0,
            w_dim=512,
            resolution=1024,
            img_channels=3,
            mapping_layers=8,
            channel_base=32768,
            channel_max=512,
            conv_clamp=None,
        )
        trunk, side = "ir_se50", 256
    generator.set_fused(fused)
    shared = {"num_ws": generator.num_ws, "w_dim": generator.w_dim, "input_size": (side, side)}
    shared |= {"input_nc": 3, "trunk": trunk}
    terms: dict[str, Any] = {"l2": L2(weight=1.0)}
    terms["perceptual"] = Perceptual(weight=0.8, backbone=efficientnet_lite0(weights=None))
    common: dict[str, Any] = {"generator": generator, "optimizer": lambda p: Ranger(p, **RANGER)}
    common |= {"start_from_w_avg": True, "noise": "random", "seed": 0, "micro_batches": 1}
    common["task"] = Image()
    common |= {"clip_norm": None, "max_nonfinite": 10}
    if name == "psp":
        return PSp(encoder=GradualStyleEncoder(**shared), loss=Terms(terms), **common)
    terms |= {"delta": Delta(weight=2e-4, p=2), "adversarial": LatentAdversarial(weight=0.1)}
    return E4E(
        encoder=Encoder4Editing(**shared),
        loss=Terms(terms),
        discriminator=lambda w_dim: LatentDiscriminator(w_dim=w_dim, layers=4),
        optimizer_D=lambda p: torch.optim.Adam(p, lr=2e-5, fused=True),
        r1_gamma=10.0,
        r1_every=16,
        progressive_start=None,
        progressive_every=1,
        pool_size=0,
        **common,
    )


# ------------------------------------------------------------------ ganinv's step


class Batches(pl.LightningDataModule):
    """The same images over and over, at advancing positions."""

    def __init__(self, images: Tensor, steps: int) -> None:
        super().__init__()
        self.images, self.steps = images, steps

    def train_dataloader(self) -> Any:
        count = len(self.images)
        batches = [
            {
                "image": self.images,
                "key": [""] * count,
                "position": torch.arange(i * count, (i + 1) * count),
            }
            for i in range(self.steps)
        ]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class Laps(pl.Callback):
    """Seconds of each step, from nothing left to do to nothing left to do."""

    def __init__(self) -> None:
        self.laps: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = now()

    def on_train_batch_end(self, *_: Any) -> None:
        self.laps.append(now() - self.start)


def bare_trainer(device: str, precision: Any, callback: pl.Callback) -> pl.Trainer:
    """Lightning's loop over one epoch and nothing around it."""
    return pl.Trainer(
        accelerator=device,
        devices=1,
        precision=precision,
        max_epochs=1,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def now() -> float:
    """Seconds; a GPU has finished all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(
    method: EncoderMethod, device: str = "cpu", precision: Any = "32-true"
) -> Callable[[Tensor, int], list[float]]:
    """A method's own step, as `train.py` takes it."""

    def run(images: Tensor, steps: int) -> list[float]:
        laps = Laps()
        trainer = bare_trainer(device, precision, laps)
        trainer.fit(method, datamodule=Batches(images, steps))
        return laps.laps

    return run


# ------------------------------------------------------------------ the plain loop


class PlainRanger:
    """Ranger's update, a Python loop over parameters."""

    def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]
        self.slow = [p.detach().clone() for p in self.parameters]
        self.t = 0

    @torch.no_grad()
    def step(self) -> None:
        self.t += 1
        beta1, beta2 = 0.95, 0.999
        limit = 2 / (1 - beta2) - 1
        power = beta2**self.t
        rho = limit - 2 * self.t * power / (1 - power)
        spread = (rho - 4) / (limit - 4) * (rho - 2) / rho * limit / (limit - 2)
        for p, m, v, slow in zip(self.parameters, self.m, self.v, self.slow, strict=True):
            if p.grad is None:
                continue
            g = p.grad.float()
            if g.dim() > 1:
                g = g - g.mean(tuple(range(1, g.dim())), keepdim=True)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            m.mul_(beta1).add_(g, alpha=1 - beta1)
            size = 1e-4 / (1 - beta1**self.t)
            if rho > 5:
                size *= math.sqrt((1 - power) * spread)
                p.addcdiv_(m, v.sqrt().add_(1e-5), value=-size)
            else:
                p.add_(m, alpha=-size)
            if self.t % 6 == 0:
                slow.add_(p - slow, alpha=0.5)
                p.copy_(slow)


def plain(method: EncoderMethod) -> Callable[[Tensor, int], list[float]]:
    """The step of the released trainers on a method's networks, wherever they lie."""
    for network in (method.E, method.G, method.terms):
        network.to(memory_format=torch.contiguous_format)
    E, G, terms = method.E.train(), method.G, method.terms
    G.requires_grad_(isinstance(method, PSp))
    ranger = PlainRanger(E.parameters())
    D = method.D if isinstance(method, E4E) else None
    adam = torch.optim.Adam(D.parameters(), lr=2e-5) if D is not None else None
    taken = 0

    def discriminate(x: Tensor) -> None:
        assert D is not None and adam is not None
        D.requires_grad_(True)
        with torch.no_grad():
            real = G.mapping(torch.randn(len(x), G.z_dim, device=x.device))
            fake = (E(x) + G.w_avg)[:, 0]
        loss = F.softplus(-D(real)).mean() + F.softplus(D(fake)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        loss.item()
        if taken % 16 == 0:
            real = real.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(D(real).sum(), real, create_graph=True)
            adam.zero_grad()
            (10 / 2 * slope.square().sum(1).mean() * 16).backward()
            adam.step()
        D.requires_grad_(False)

    def step(images: Tensor) -> None:
        nonlocal taken
        x = to_unit(images)
        if D is not None:
            discriminate(x)
        wp = E(x) + G.w_avg
        x_hat = G.synthesis(repeat_w(wp, G.num_ws), noise="random", seeds=list(range(len(x))))
        if x_hat.shape != x.shape:
            x_hat = F.adaptive_avg_pool2d(x_hat, x.shape[-2:])
        losses = terms(x_hat=x_hat, x=x, wp=wp, w_avg=G.w_avg, stage=None, critic=D)
        loss = total(losses)
        for network in (E, G):
            network.zero_grad()
        loss.backward()
        ranger.step()
        [value.mean().item() for _, value in losses.values()]
        loss.item()
        taken += 1

    def run(images: Tensor, steps: int) -> list[float]:
        laps = []
        for _ in range(steps):
            start = now()
            step(images)
            laps.append(now() - start)
        return laps

    return run


def plain_idinvert(method: IDInvert) -> Callable[[Tensor, int], list[float]]:
    """The released step (genforce's loss_encoder.py): E and G once for each player, every loss read
    out, logistic loss with R1, in torch's default layout."""
    for network in (method.E, method.D, method.G, method.terms):
        network.to(memory_format=torch.contiguous_format)
    E, D, G = method.E.train(), method.D, method.G
    adam_E = torch.optim.Adam(E.parameters(), lr=1e-4, betas=(0.9, 0.99))
    adam_D = torch.optim.Adam(D.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step(images: Tensor) -> None:
        x = to_unit(images)
        D.requires_grad_(False)
        wp = E(x)
        x_hat = G.synthesis(wp, noise="const")
        losses = method.terms(x_hat=x_hat, x=x, wp=wp, w_avg=G.w_avg)
        loss = torch.stack([w * value.mean() for w, value in losses.values()]).sum()
        loss = loss + method.adversarial_weight * F.softplus(-D(x_hat)).mean()
        adam_E.zero_grad()
        loss.backward()
        adam_E.step()
        D.requires_grad_(True)
        with torch.no_grad():
            x_hat = G.synthesis(E(x), noise="const")
        real = x.detach().requires_grad_(True)
        score = D(real)
        (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        penalty = method.gamma / 2 * slope.square().sum((1, 2, 3)).mean()
        loss_D = F.softplus(D(x_hat)).mean() + F.softplus(-score).mean() + penalty
        adam_D.zero_grad()
        loss_D.backward()
        adam_D.step()
        [value.mean().item() for _, value in losses.values()]
        loss_D.item()

    def run(images: Tensor, steps: int) -> list[float]:
        laps = []
        for _ in range(steps):
            start = now()
            step(images)
            laps.append(now() - start)
        return laps

    return run


# ------------------------------------------------------------------ measurement


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("avatars", "ffhq"), default="avatars")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of each row in a round")
    parser.add_argument("--json", type=Path, help="default benchmarks/results/train_step_SIZE.json")
    args = parser.parse_args()
    quieten()
    side, batch = (64, 16) if args.size == "avatars" else (256, 2)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    result: dict[str, Any] = {
        "size": args.size,
        "batch": batch,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for name in ("psp", "e4e"):
        rows = {
            "plain": plain(build(name, args.size, fused=True)),
            "fused": ours(build(name, args.size, fused=True)),
            "un-fused": ours(build(name, args.size, fused=False)),
        }
        laps: dict[str, list[float]] = {row: [] for row in rows}
        for _ in range(args.rounds):
            for row, run in rows.items():
                laps[row] += run(images, args.steps + 1)[1:]  # the first warms up
        seconds = {row: statistics.median(found) for row, found in laps.items()}
        for row, found in seconds.items():
            ratio = seconds["plain"] / found
            print(f"{name:4} {row:9} {batch / found:8.2f} images/s  {ratio:5.2f}x", flush=True)
            result[f"{name} {row}"] = {
                "images_per_second": round(batch / found, 2),
                "times_plain": round(ratio, 2),
            }
    path = args.json or Path(f"benchmarks/results/train_step_{args.size}.json")
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"written: {path}")


if __name__ == "__main__":
    main()
