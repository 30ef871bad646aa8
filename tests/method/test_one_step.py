"""One step of a method against its paper's loss, written out here with nothing but the networks:
the gradient that each player's optimizer is given, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganinv.core.seed import rand_rows
from ganinv.method.base import Method
from tests.method.curves import batches, trained_steps
from tests.runs import METHODS

LOSS = ["loss.l2.weight=3", "loss.perceptual.weight=0.7"]
E4E_LOSS = [*LOSS, "loss.delta.weight=0.02", "loss.adversarial.weight=0.3", "method.pool_size=0"]
Networks = dict[str, Any]  # letter -> a copy, as it was when the gradient was taken
Move = tuple[str, Networks, dict[str, Tensor]]  # player, the networks, its gradient by parameter


@pytest.fixture(autouse=True)
def plain_numbers() -> Iterator[None]:
    """A step leaves float64 as the type of new tensors, as it was while it drew its own."""
    yield
    torch.set_default_dtype(torch.float32)


class Step:
    """The first step of a method: what it was given and the gradients it took.

    Attributes:
        x: images [B,3,H,W].
        position: of the images in the stream.
        moves: of the players, in order.
        built: the method.
    """

    def __init__(self, method: str, generator_file: Any, more: list[str]) -> None:
        self.moves: list[Move] = []
        batch = next(batches(method == "bdinvert"))
        self.position = batch["position"]
        self.built, _ = trained_steps(
            method, generator_file, [batch], more=more, prepare=self.watch
        )
        self.x = (batch["image"].float() / 127.5 - 1).double()
        torch.set_default_dtype(torch.float64)

    def watch(self, built: Method) -> None:
        """Copy networks and gradients before each move."""
        move = built.move

        def copied(player: str) -> None:
            networks = {n: copy.deepcopy(getattr(built, n)) for n in self.letters(built)}
            weights = getattr(built, player).named_parameters()
            gradient = {n: p.grad.clone() for n, p in weights if p.grad is not None}
            self.moves.append((player, networks, gradient))
            move(player)

        built.move = copied  # type: ignore[method-assign]

    @staticmethod
    def letters(built: Method) -> set[str]:
        """The networks of a method."""
        return {*built.player_names, "G"}

    def check(self, number: int, player: str, loss: Callable[[Networks], Tensor]) -> None:
        """Compare the gradient of move `number` with that of `loss`, of the same networks."""
        moved, networks, gradient = self.moves[number]
        assert moved == player
        network: nn.Module = networks[player]
        for other in networks.values():
            other.requires_grad_(False).zero_grad()
        network.requires_grad_(True)
        loss(networks).backward()
        weights = dict(network.named_parameters())
        assert {n for n, p in weights.items() if p.grad is not None} >= set(gradient)
        largest = max(float(g.abs().max()) for g in gradient.values())
        assert largest > 1e-6  # there is something to compare
        for name, weight in weights.items():
            if name in gradient:
                torch.testing.assert_close(
                    gradient[name], weight.grad, rtol=1e-7, atol=1e-9 * largest, msg=name
                )
            else:
                assert weight.grad is None or not weight.grad.any(), name


def perceptual(built: Any, x_hat: Tensor, x: Tensor) -> Tensor:
    """sum over stages of mean ||y_hat / |y_hat| - y / |y|||^2, |y|^2 + 1e-10 in the root."""
    value = torch.zeros((), dtype=x.dtype)
    stages = built.terms["perceptual"].backbone.stages
    for y_hat, y in zip(stages(x_hat), stages(x), strict=True):
        lengths = [(a.square().sum(1, keepdim=True) + 1e-10).sqrt() for a in (y_hat, y)]
        value = value + (y_hat / lengths[0] - y / lengths[1]).square().sum(1).mean()
    return value


def slope(network: nn.Module, x: Tensor) -> Tensor:
    """grad_x D(x) [B,K], with its graph."""
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(network(x).sum(), x, create_graph=True)[0].flatten(1)


def reconstruction(step: Step, x_hat: Tensor) -> Tensor:
    """3 |x - x_hat|^2 + 0.7 perceptual, the weights of LOSS."""
    difference = 3 * (step.x - x_hat).square().mean()
    return difference + 0.7 * perceptual(step.built, x_hat, step.x)


def test_psp(assets: Any) -> None:
    """L = 3 l2 + 0.7 perceptual + 0.2 |wp - w_avg|."""
    more = [*LOSS, "loss.latent_norm.weight=0.2", "method.noise=const"]
    step = Step("psp", assets[0], more)

    def loss(networks: Networks) -> Tensor:
        offset = networks["E"](step.x)
        x_hat = networks["G"].synthesis(networks["G"].w_avg + offset, noise="const")
        norm = offset.square().sum((1, 2)).sqrt().mean()
        return reconstruction(step, x_hat) + 0.2 * norm

    step.check(0, "E", loss)
    assert len(step.moves) == 1


@pytest.mark.parametrize("last, start", [(0, 8), (1, 0)])
def test_e4e(last: int, start: int, assets: Any) -> None:
    """E: 3 l2 + 0.7 perceptual + 0.02 sum |delta_i| + 0.3 mean softplus(-D(wp_i)); D: logistic on w
    and wp_0, then R1 of 16 steps at once; where `last` is the last opened layer."""
    schedule = [f"method.progressive_start={start}", "method.progressive_every=4"]
    more = [*E4E_LOSS, *schedule, "method.r1_every=16", "method.noise=const"]
    step = Step("e4e", assets[0], more)
    built: Any = step.built

    def codes(networks: Networks) -> Tensor:
        return networks["G"].w_avg + networks["E"](step.x, stage=last)  # type: ignore[no-any-return]

    def loss_E(networks: Networks) -> Tensor:
        wp = codes(networks)
        x_hat = networks["G"].synthesis(wp, noise="const")
        delta = sum((wp[:, i] - wp[:, 0]).norm(dim=1).mean() for i in range(1, last + 1))
        scores = torch.stack([networks["D"](wp[:, i]) for i in range(last + 1)])
        return reconstruction(step, x_hat) + 0.02 * delta + 0.3 * F.softplus(-scores).mean()

    step.check(0, "E", loss_E)
    with torch.no_grad():
        networks = step.moves[0][1]
        wp = codes(networks)
        w = networks["G"].mapping(built.randn("z", step.position, 16))
    assert (wp[:, last + 1 :] == wp[:, :1]).all()

    def loss_D(networks: Networks) -> Tensor:
        real, fake = networks["D"](w), networks["D"](wp[:, 0])
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def loss_R1(networks: Networks) -> Tensor:
        return 16 * 10 / 2 * slope(networks["D"], w).square().sum(1).mean()

    step.check(1, "D", loss_D)
    step.check(2, "D", loss_R1)


@pytest.mark.parametrize(
    "game", ["wgan_gp", pytest.param("wgan_r1", marks=pytest.mark.nightly), "logistic_r1"]
)
def test_idinvert(game: str, assets: Any) -> None:
    """E: 3 l2 + 0.7 perceptual + 0.05 A_E; D: A_D + P with gamma = 8, on E's own x_hat."""
    more = [*LOSS, f"method.gan_loss={game}", "method.adversarial_weight=0.05", "method.gamma=8"]
    step = Step("idinvert", assets[0], more)
    built: Any = step.built

    def reconstructed(networks: Networks) -> Tensor:
        return networks["G"].synthesis(networks["E"](step.x), noise="const")  # type: ignore[no-any-return]

    def loss_E(networks: Networks) -> Tensor:
        x_hat = reconstructed(networks)
        score = networks["D"](x_hat)
        side = F.softplus(-score) if game == "logistic_r1" else -score
        return reconstruction(step, x_hat) + 0.05 * side.mean()

    step.check(0, "E", loss_E)
    with torch.no_grad():
        x_hat = reconstructed(step.moves[0][1])

    def loss_D(networks: Networks) -> Tensor:
        D, x = networks["D"], step.x  # noqa: N806
        if game == "logistic_r1":
            played = F.softplus(D(x_hat)) + F.softplus(-D(x))
        else:
            played = D(x_hat) - D(x)
        if game == "wgan_gp":
            seeds = built.seeds("between", step.position)
            share = rand_rows(seeds, "cpu")[:, None, None, None]
            penalty = 8 * (slope(D, share * x + (1 - share) * x_hat).norm(dim=1) - 1).square()
        else:
            penalty = 8 / 2 * slope(D, x).square().sum(1)
        return played.mean() + penalty.mean()

    step.check(1, "D", loss_D)
    assert len(step.moves) == 2


def test_gan(assets: Any) -> None:
    """G: softplus(-D(G(z))); D: logistic on x and G(z') of new z'; R1 with gamma = 0.4, of two
    steps at once; then the average of G."""
    step = Step("gan", assets[0], ["method.r1_gamma=0.4", "method.w_avg_beta=0.9"])
    built: Any = step.built

    def fake(networks: Networks, purpose: str) -> tuple[Tensor, Tensor]:
        w = networks["G"].mapping(built.randn(f"z_{purpose}", step.position, 16))
        wp = w[:, None].repeat(1, networks["G"].num_ws, 1)
        seeds = built.seeds(f"n_{purpose}", step.position)
        return networks["G"].synthesis(wp, noise="random", seeds=seeds), w

    def loss_D(networks: Networks) -> Tensor:
        made = fake(networks, "D")[0].detach()
        return F.softplus(networks["D"](made)).mean() + F.softplus(-networks["D"](step.x)).mean()

    step.check(0, "G", lambda networks: F.softplus(-networks["D"](fake(networks, "G")[0])).mean())
    step.check(1, "D", loss_D)
    step.check(2, "D", lambda n: 2 * 0.4 / 2 * slope(n["D"], step.x).square().sum(1).mean())
    before, after = step.moves[0][1]["G"], built.G
    w_avg = 0.9 * before.w_avg + 0.1 * fake(step.moves[0][1], "G")[1].mean(0)
    torch.testing.assert_close(after.w_avg, w_avg)
    for averaged, weight in zip(built.G_ema.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(averaged, weight)  # at 0 images the half-life is 0


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"bdinvert", "gan"}))
def test_the_codes_of_a_step_are_those_of_the_model(method: str, assets: Any) -> None:
    """The paper's line in the method's file and `Model.encode` agree, with refinements too."""
    found: list[Tensor] = []
    expected: list[Tensor] = []

    def prepare(built: Any) -> None:
        render, moved = built.model.render, built.step

        def noted(wp: Any, *rest: Any) -> Tensor:
            found.append(wp.detach())
            return render(wp, *rest)  # type: ignore[no-any-return]

        def step(x: Tensor, batch: Any) -> None:
            with torch.no_grad():
                expected.append(built.encode(built.encoder_input(batch, x)))
            found.clear()
            moved(x, batch)

        built.model.render, built.step = noted, step

    more = ["method.noise=const"]
    trained_steps(method, assets[0], [next(batches(False))], more=more, prepare=prepare)
    torch.testing.assert_close(found[-1], expected[0], rtol=1e-12, atol=1e-12)
    assert len(found) == (2 if method.startswith("restyle") else 1)
    assert expected[0].std() > 1e-3
