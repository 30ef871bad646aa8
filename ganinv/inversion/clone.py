"""Clone: the code stays, and generator and discriminator go on with their game around one image.

Source: Feng et al., "Near Perfect GAN Inversion", arXiv 2202.11833, sec. 3.

    wp_p  [B,L,D]    the nearest projection on the manifold: any other method's code, frozen
    theta, d_i       weights of G's synthesis, never changed; the change for image i, starts at 0
    phi, e_i         weights of D, likewise
    x_r, z           real images and codes drawn anew at each step, for each image its own

    L_local  = a pyramid(x, G(wp_p)) + adversarial [log D(x) + log(1 - D(G(wp_p)))]
    L_global = E log D(x_r) + E log(1 - D(G(z)))
    L        = 1_p L_local + L_global                with theta + d_i, phi + e_i throughout

G descends the logistic losses in their non-saturating form, D ascends L, both at once; the local
term counts with probability p, the global one always, so that the rest of the manifold stays where
it is. Image i has enough when its pyramid distance is at most `epsilon`.

There is no released code, and the paper gives no numbers: p, weights, rates, steps, the pyramid's
form and R1 are ours. Differs from the paper in: x_r are samples of G as it was, unless
`real_images` names a folder of training images; G and D move together, not in turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.errors import ConfigError, explain
from ganinv.core.image import to_unit
from ganinv.core.interface import Inversion, Target
from ganinv.core.latent import repeat_w
from ganinv.core.seed import derive_seed, rand_rows, randn_rows
from ganinv.dataset.codec import load, resize
from ganinv.dataset.source import open_source
from ganinv.discriminator.stylegan import StyleGANDiscriminator
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer.load import load_discriminator
from ganinv.generator.per_image import PREFIX, call_each
from ganinv.inversion.likeness import masked
from ganinv.inversion.optimise import Known, Leaves, Optimise
from ganinv.inversion.start import Start, check_pivot, pivot_of
from ganinv.loss.adversarial import logistic, non_saturating, r1_penalty
from ganinv.loss.term import Term

CRITIC = "critic:"  # before the names of D's parameters among the leaves
KINDS = (StyleGANDiscriminator, StyleGAN2Discriminator)


class Clone(Optimise):
    """See the module. Further arguments as `Optimise`.

    Args:
        pivot: the method that gives wp_p.
        pyramid: the distance of the local term, a term on images, and its weight a.
        epsilon: of that distance, at which an image has enough; None for all steps.
        adversarial_weight: of D's part in the local term.
        local_probability: p.
        global_weight: of the global term; 0 leaves it out.
        global_batch: x_r and z's of an image and step.
        r1_gamma: of R1 on x_r; 0 leaves it out.
        r1_every: steps from one R1 to the next, which counts so often.
        critic: D, or a file that holds it; None: the generator's own file.
        real_images: a folder, zip or LMDB of training images; None: samples of G.
    """

    betas: ClassVar[tuple[float, float]] = (0.0, 0.99)
    shown: ClassVar[str] = "pyramid"
    changes_weights = True

    def __init__(
        self,
        *,
        pivot: Start,
        pyramid: Term,
        epsilon: float | None,
        adversarial_weight: float,
        local_probability: float,
        global_weight: float,
        global_batch: int,
        r1_gamma: float,
        r1_every: int,
        critic: str | nn.Module | None,
        real_images: str | None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_pivot(pivot, self.model)
        if not 0 <= local_probability <= 1:
            raise ConfigError(
                explain(f"local_probability={local_probability}", "a number from 0 to 1", "set it")
            )
        self.pivot, self.pyramid, self.epsilon = pivot, pyramid, epsilon
        self.adversarial_weight, self.p = adversarial_weight, local_probability
        self.global_weight, self.count = global_weight, global_batch
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        plays = adversarial_weight > 0 or global_weight > 0
        self.D = critic_of(critic, self.model.G) if plays else None
        self.reals = Reals(real_images, self.model.G.resolution) if real_images else None

    def start(self, target: Target) -> tuple[Leaves, Known]:
        """The pivot, and no change yet of G or D."""
        begun = pivot_of(self.pivot, target, self.model)
        count, own = len(target.key), self.model.G.synthesis.named_parameters()
        changes = {PREFIX + n: p.new_zeros(count, *p.shape) for n, p in own}
        if self.D is not None:
            self.D.to(target.x.device)
            theirs = self.D.named_parameters()
            changes |= {CRITIC + n: p.new_zeros(count, *p.shape) for n, p in theirs}
        return changes, {"wp": begun.wp.detach(), "f": begun.f, "noise": begun.noise}

    def found(self, leaves: Leaves, known: Known) -> Inversion:
        """The pivot with G's changes; D's are of no further use."""
        weights = {name: value for name, value in leaves.items() if name.startswith(PREFIX)}
        return Inversion(wp=known["wp"], f=known["f"], noise=known["noise"], weights=weights)

    def losses(
        self, target: Target, leaves: Leaves, known: Known, image: Tensor, step: int
    ) -> dict[str, Tensor]:
        """pyramid, local (drawn), global, critic (what D descends) and r1."""
        x_hat, x = masked(image, target), masked(target.x, target)
        values = {"pyramid": self.pyramid(x_hat, x)}
        nothing = torch.zeros_like(values["pyramid"])
        drawn = rand_rows([derive_seed(s, "local", step) for s in target.seeds], image.device)
        drawn = (drawn < self.p).to(image.dtype)
        values["local"] = self.pyramid.weight * drawn * values["pyramid"]
        values |= dict.fromkeys(("global", "critic", "r1"), nothing)
        if self.adversarial_weight:
            real, fake = self.whole(x)[:, None], self.whole(x_hat)[:, None]
            of_g, of_d = self.game(leaves, real, fake)
            values["local"] = values["local"] + self.adversarial_weight * drawn * of_g
            values["critic"] = values["critic"] + self.adversarial_weight * drawn * of_d
        if self.global_weight:
            real, fake = self.elsewhere(target, leaves, step)
            of_g, of_d = self.game(leaves, real, fake)
            values["global"] = self.global_weight * of_g
            values["critic"] = values["critic"] + self.global_weight * of_d
            if self.r1_gamma and step % self.r1_every == 0:
                values["r1"] = self.r1_gamma / 2 * self.r1_every * self.r1(leaves, real)
        return values

    def weights(self) -> Mapping[str, float]:
        """What is in the total; pyramid alone is watched, where it was not drawn too."""
        return dict.fromkeys(("local", "global", "critic", "r1"), 1.0)

    def converged(self, values: Mapping[str, Tensor]) -> Tensor | None:
        """pyramid at most epsilon."""
        return None if self.epsilon is None else values["pyramid"] <= self.epsilon

    # ------------------------------------------------------------------ the game

    def judge(self, leaves: Leaves, images: Tensor, moves: bool) -> Tensor:
        """D's logits [B,n] of images [B,n,3,R,R], each row's D its own; `moves`: whether gradients
        reach D."""
        assert self.D is not None
        changes = {k.removeprefix(CRITIC): v for k, v in leaves.items() if k.startswith(CRITIC)}
        changes = changes if moves else {k: v.detach() for k, v in changes.items()}
        return call_each(self.D, changes, images).flatten(1)

    def game(self, leaves: Leaves, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """What G and what D descends, [B] each: neither's loss moves the other."""
        of_g = non_saturating(self.judge(leaves, fake, moves=False)).view(len(fake), -1)
        logits = [self.judge(leaves, images.detach(), moves=True) for images in (real, fake)]
        return of_g.mean(1), logistic(*logits).view(len(fake), -1).mean(1)

    def r1(self, leaves: Leaves, real: Tensor) -> Tensor:
        """|grad D(x_r)|^2, mean over an image's n, [B]."""
        slopes = r1_penalty(lambda images: self.judge(leaves, images, moves=True), real)
        return slopes / self.count  # of the sum over the n images of each row

    def elsewhere(self, target: Target, leaves: Leaves, step: int) -> tuple[Tensor, Tensor]:
        """x_r and G(z; theta + d), [B,n,3,R,R] each."""
        G = self.model.G
        with torch.no_grad():
            codes = self.codes(target, "fake", step)
            if self.reals is None:
                wp = self.codes(target, "real", step).flatten(0, 1)
                real = G.synthesis(wp).unflatten(0, codes.shape[:2])
            else:
                real = self.reals(target.seeds, step, self.count).to(codes)
        changes = {k.removeprefix(PREFIX): v for k, v in leaves.items() if k.startswith(PREFIX)}
        return real, call_each(G.synthesis, changes, codes)

    def codes(self, target: Target, purpose: str, step: int) -> Tensor:
        """wp [B,n,L,D] of z ~ N(0,I), never truncated."""
        G, numbers = self.model.G, range(self.count)
        seeds = [derive_seed(s, "global", purpose, step, n) for s in target.seeds for n in numbers]
        z = randn_rows(seeds, (G.z_dim,), target.x.device).to(target.x.dtype)
        wp = repeat_w(G.mapping(z), G.num_ws)
        return wp.unflatten(0, (len(target.key), self.count))

    def whole(self, image: Tensor) -> Tensor:
        """[B,3,H,W] at the R x R px that D reads; where the target is smaller, both sides are
        enlarged alike."""
        size = (self.model.G.resolution,) * 2
        if image.shape[-2:] == size:
            return image
        return F.interpolate(image, size, mode="bilinear", align_corners=False)


class Reals:
    """Training images by number.

    Args:
        path: a folder, zip or LMDB.
        side: px that they are cropped and resized to.
    """

    def __init__(self, path: str, side: int) -> None:
        self.source, self.side = open_source(Path(path)), side
        self.names = [name for name, _ in self.source.items()]
        if not self.names:
            raise ConfigError(
                explain(f"real_images={path}, which holds no images",
                        "images that the generator was trained on", "check the path")
            )  # fmt: skip

    def __call__(self, seeds: Sequence[int], step: int, count: int) -> Tensor:
        """[B,count,3,R,R] in [-1,1], a function of each seed and the step."""
        rows = [derive_seed(s, "real image", step, n) for s in seeds for n in range(count)]
        images = [self._read(self.names[row % len(self.names)]) for row in rows]
        return to_unit(torch.stack(images)).unflatten(0, (len(seeds), count))

    def _read(self, name: str) -> Tensor:
        pixels: np.ndarray = resize(load(self.source.read(name)), (self.side, self.side), "crop")
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def critic_of(critic: str | nn.Module | None, G: Any) -> nn.Module:
    """D, frozen, in eval mode.

    Raises:
        ConfigError: a D of another size, or conditional.
        WeightsMissing, WeightsError: no file, or one without a discriminator.
    """
    if not isinstance(critic, nn.Module):
        if critic is None and G.source is None:
            raise ConfigError(
                explain("clone on a generator of no file, which has no discriminator", "one",
                        "set inversion.clone.critic=FILE, or adversarial_weight and global_weight "
                        "to 0")
            )  # fmt: skip
        found = load_discriminator(weights=str(critic or G.source), origin=None)
        kind = next((kind for kind in KINDS if kind.__name__ == found.kind), KINDS[-1])
        critic = found.build(kind).to(G.w_avg)
    side: Any = getattr(critic, "resolution", G.resolution)
    if side != G.resolution or getattr(critic, "c_dim", 0):
        raise ConfigError(
            explain(f"a discriminator of {side} px, {getattr(critic, 'c_dim', 0)} classes, for a "
                    f"generator of {G.resolution} px", "the one that it was trained with",
                    "set inversion.clone.critic=FILE")
        )  # fmt: skip
    return critic.eval().requires_grad_(False)
