"""What each image may bring to a synthesis network beside its codes: noise maps and changes of the
weights, for a batch at once and without touching the network.

    noise    name of G's noise buffer -> [B,1,r,r], e.g. synthesis.b8.conv1.noise_const
    weights  name of G's parameter -> its change [B,*shape], e.g. synthesis.b8.conv1.weight

Image i is made with the weights W + dW_i: each convolution runs with one kernel an image, as groups
of one convolution, which is also the fused form of StyleGAN2. Gradients reach dW_i, never W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap

from ganinv.core.errors import explain
from ganinv.core.seed import randn_maps

PREFIX = "synthesis."  # names are those of the generator's state dict
NoiseMaps = Mapping[str, Tensor]


def check_noise(maps: NoiseMaps, network: nn.Module, batch: int) -> dict[str, Tensor]:
    """The given maps, name -> [B,1,r,r]; layers that none names keep theirs.

    Raises:
        ValueError: a name that is no noise buffer of the network, or a map of another shape.
    """
    shapes = {name: (batch, 1, *own.shape) for name, own in stored_maps(network).items()}
    _check_names("noise", maps, shapes)
    return dict(maps)


def stored_maps(network: nn.Module) -> dict[str, Tensor]:
    """Name -> noise buffer [r,r] of each layer of a synthesis network, in order."""
    buffers = network.named_buffers()
    return {f"{PREFIX}{name}": b for name, b in buffers if name.endswith("noise_const")}


def random_maps(network: nn.Module, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Name of each layer's stored map -> N(0,1) [B,1,r,r] in its place, a function of each image's
    seed; of all layers, also of those that an f leaves out, so that the others keep theirs."""
    own = stored_maps(network)
    if not own:
        return {}
    shapes = [(1, *stored.shape) for stored in own.values()]
    drawn = randn_maps(seeds, shapes, next(iter(own.values())).device)
    return dict(zip(own, drawn, strict=True))


def synthesize_changed(
    network: nn.Module,
    wp: Tensor,
    weights: Mapping[str, Tensor],
    f: Tensor | None,
    noise: str | NoiseMaps,
) -> Tensor:
    """Images of a synthesis network, each with its own changes of the weights.

    Args:
        network: the synthesis network; its own weights take part as constants.
        wp: [B,L,D].
        weights: see the module; parameters that none names are the network's own.
        f: [B,C,h,h] or None.
        noise: "const", "none" or maps.

    Returns:
        [B,3,R,R], as the network gives them.

    Raises:
        ValueError: a name that is no parameter, a change of another shape, or random noise, which
            has no order of layers here: draw maps and pass those.
    """
    own = {f"{PREFIX}{name}": value for name, value in network.named_parameters()}
    _check_names("weights", weights, {k: (len(wp), *v.shape) for k, v in own.items()})
    if noise == "random":
        raise ValueError(
            explain("random noise with weights of each image", "const, none or maps of noise",
                    "draw the maps and pass them as noise")
        )  # fmt: skip
    maps = {} if isinstance(noise, str) else dict(noise)

    def one(changes: dict[str, Tensor], wp: Tensor, f: Tensor | None, maps: NoiseMaps) -> Tensor:
        given = {k.removeprefix(PREFIX): own[k].detach() + v for k, v in changes.items()}
        more: dict[str, Any] = {"f": None if f is None else f[None]}
        more["noise"] = {k: v[None] for k, v in maps.items()} or noise
        image: Tensor = functional_call(network, given, (wp[None],), more)[0]
        return image

    batched: Callable[..., Tensor] = vmap(one, in_dims=(0, 0, None if f is None else 0, 0))
    return batched(dict(weights), wp, f, maps)


def call_each(network: nn.Module, changes: Mapping[str, Tensor], given: Tensor) -> Tensor:
    """A network on each image's own inputs with each image's own changes of its weights.

    Args:
        network: its own weights take part as constants.
        changes: name of a parameter of the network -> its change [B,*shape].
        given: [B,n,...], n inputs for each of B.

    Returns:
        [B,n,...], the network's outputs; output i depends on input i alone.

    Raises:
        ValueError: a name that is no parameter, or a change of another shape.
    """
    own = dict(network.named_parameters())
    _check_names("weights", changes, {k: (len(given), *v.shape) for k, v in own.items()})

    def one(changes: dict[str, Tensor], given: Tensor) -> Tensor:
        changed = {name: own[name].detach() + value for name, value in changes.items()}
        out: Tensor = functional_call(network, changed, (given,))
        return out

    batched: Callable[..., Tensor] = vmap(one)
    return batched(dict(changes), given)


def _check_names(
    what: str, given: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    for name, value in given.items():
        if name not in shapes:
            known = ", ".join(list(shapes)[:2]) or "none: this generator has none"
            raise ValueError(
                explain(f"{what} with {name!r}", f"names of the generator's own ({known} ...)",
                        "take them from its state dict")
            )  # fmt: skip
        if tuple(value.shape) != shapes[name]:
            raise ValueError(
                explain(f"{what} with {name} of {tuple(value.shape)}", f"{shapes[name]}, one an "
                        "image", "repeat it for every image")
            )  # fmt: skip
