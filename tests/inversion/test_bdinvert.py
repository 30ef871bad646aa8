"""BDInvert's search: what starts where, what moves, and whose base code it takes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ganinv.core.errors import ConfigError, WeightsError, WeightsMissing
from ganinv.inversion.bdinvert import base_code_encoder
from ganinv.inversion.encode import Encode
from tests.inversion import tiny
from tests.inversion.methods import base_code_file, bdinvert


@pytest.mark.parametrize("family", ["stylegan", "stylegan2"])
def test_f_and_the_rows_above_it_move_towards_the_image(family):
    model = tiny.model(family, size=64)
    target = tiny.target(model, "ab")
    method = bdinvert(model)
    assert method.first_row == 2 and not method.E.training
    leaves, known = method.start(target)
    assert leaves["wp"].shape == (2, model.num_ws - 2, tiny.WIDTH)
    assert torch.equal(leaves["f"], method.E(target.x)) and leaves["f"].shape == (2, 4, 8, 8)
    found = method(target)
    curves = method.trace.values
    assert set(curves) == {"mse", "perceptual", "base", "p_norm", "total"}
    assert (curves["total"][-1] < curves["total"][0]).all() and (curves["base"][0] == 0).all()
    below = model.G.w_avg.expand(2, 2, -1)
    assert torch.equal(found.wp[:, :2], below) and (found.wp[:, 2:] != leaves["wp"]).any()
    for i, key in enumerate("ab"):
        alone = method(tiny.target(model, key))
        torch.testing.assert_close(alone.f[0], found.f[i], rtol=0, atol=1e-9)
        torch.testing.assert_close(alone.wp[0], found.wp[i], rtol=0, atol=1e-9)
    encoded = bdinvert(model, start=Encode(model=model)).start(target)[0]["wp"]
    assert torch.equal(encoded, model.encode(target.s)[:, 2:])


@pytest.mark.parametrize("family", ["stylegan", "stylegan2"])
def test_sixteen_cells(family):
    """f of 16 x 16 enters at the fifth layer of W+: the first four are neither read nor moved."""
    model = tiny.model(family, size=128)
    target = tiny.target(model, "ab")
    method = bdinvert(model, base_code=base_code_file(model, side=16), steps=4)
    assert method.first_row == 4 and method.E.input_size == (128, 128)
    found = method(target)
    assert found.f.shape == (2, 4, 16, 16)
    assert torch.equal(found.wp[:, :4], model.G.w_avg.expand(2, 4, -1))
    curve = method.trace.values["total"]
    assert (curve[-1] < curve[0]).all()
    image = model.render(found)
    other = found.wp.clone()
    other[:, :4] += 1.0
    assert torch.equal(image, model.render(replace(found, wp=other)))
    other[:, 4] += 1.0
    assert not torch.equal(image, model.render(replace(found, wp=other)))


def test_the_losses_by_formula():
    model = tiny.model(size=64)
    target = tiny.target(model, "ab")
    method = bdinvert(model)
    leaves, known = method.start(target)
    moved = {name: leaf + 0.1 * torch.randn_like(leaf) for name, leaf in leaves.items()}
    image = model.render(method.found(moved, known))
    values = method.losses(target, moved, known, image, 0)
    expected = (moved["f"] - leaves["f"]).square().mean((1, 2, 3))
    torch.testing.assert_close(values["base"], expected)
    p = (F.leaky_relu(moved["wp"], 5.0) - method.whiten.mean) @ method.whiten.matrix
    torch.testing.assert_close(values["p_norm"], p.square().mean((1, 2)))
    low = [F.avg_pool2d(x, 8) for x in (image, target.x)]
    torch.testing.assert_close(values["perceptual"], tiny.perceptual()(*low))
    assert method.weights() == {"mse": 1.0, "perceptual": 1.0, "base": 1.0, "p_norm": 0.01}


def test_refusals(tmp_path):
    G = tiny.model(size=64).G

    def refused(error, words, checkpoint, generator=G):
        with pytest.raises(error, match=words):
            base_code_encoder(checkpoint, generator)

    file = base_code_file(None, generator_sha256="ab" * 32)
    refused(ConfigError, "without base_code; expected the checkpoint.*method=bdinvert", None)
    refused(ConfigError, "bdinvert on a StyleGAN3", file, tiny.model("stylegan3").G)
    refused(WeightsMissing, "no weights file", str(tmp_path / "none.ckpt"))
    refused(WeightsError, "trained on a generator with sha256 abababababab...; expected None", file)
    G.sha256 = "ab" * 32
    assert base_code_encoder(file, G).side == 8
    other = tmp_path / "psp.ckpt"
    torch.save({"ganinv": {"config": {"encoder": {"_target_": "a.b.PSPEncoder"}}}}, other)
    refused(WeightsError, "psp.ckpt, which holds no base-code encoder", str(other))
    content = torch.load(file, weights_only=True)
    content["ganinv"]["config"]["encoder"]["channels"] = 8
    torch.save(content, other)
    refused(WeightsError, "instead of", str(other))
    G.synthesis.channels[8] = 6
    refused(ConfigError, "a base code of 4 x 8 x 8; expected maps that the generator has", file)
    method = bdinvert(tiny.model(size=64))
    small = tiny.target(tiny.model(size=16), "a")
    with pytest.raises(ConfigError, match="images of 16 x 16 px for a base code of 8 cells"):
        method(small)
