"""BDInvert's sampling, and the property of F/W+ that it builds on."""

import pytest
import torch
import torch.nn.functional as F

from ganinv.core.errors import ConfigError
from ganinv.core.latent import repeat_w
from ganinv.encoder.base_code import BaseCodeEncoder, check_maps
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.loss.pixel import L2
from ganinv.loss.term import Terms
from ganinv.method.bdinvert import BDInvert, smaller
from ganinv.task.image import Image
from tests.runs import SHAPE

RECIPE = {"split": "train", "psi": 0.7, "cutoff": 4, "image_size": (64, 64)}


def base(**other):
    return BaseCodeEncoder(
        **{"side": 8, "channels": 8, "input_nc": 3, "channel_base": 8, "channel_max": 8} | other
    )


def of(encoder):
    torch.manual_seed(0)
    generator = StyleGAN2Generator(z_dim=16, w_dim=16, mapping_layers=2, conv_clamp=None, **SHAPE)
    generator.mapping.w_avg.copy_(generator.mapping(torch.randn(500, 16)).mean(0))
    return BDInvert(
        generator=generator,
        encoder=encoder,
        loss=Terms({"l2": L2(weight=1.0)}),
        task=Image(),
        optimizer=torch.optim.SGD,
        mse_weight=1.0,
        perceptual_side=32,
        decay_every=100,
        noise="const",
        seed=3,
        micro_batches=1,
        clip_norm=None,
        max_nonfinite=3,
    )


@pytest.fixture
def method():
    return of(base())


def test_a_base_code_that_fits_no_map_is_refused_before_the_first_step():
    with pytest.raises(ConfigError, match="a base code of 8 x 4 x 4; expected maps .*{8: 8, 16: 8"):
        of(base(side=4))
    with pytest.raises(ConfigError, match=r"a base code of 5 x 8 x 8; .*set encoder.side and enc"):
        of(base(channels=5))
    with pytest.raises(ConfigError, match="the encoder Linear for a base code; expected BaseCode"):
        check_maps(torch.nn.Linear(2, 2), None, "take another")


def test_a_sample_is_a_function_of_its_position_and_truncated_below_the_cutoff(method):
    batch = {"position": torch.tensor([5, 6, 7]), "key": ["", "", ""], "synthetic": RECIPE}
    alone = {"position": torch.tensor([6]), "key": [""], "synthetic": RECIPE}
    wp = method.model.sample(batch, method.seed)
    torch.testing.assert_close(method.model.sample(alone, method.seed), wp[1:2])
    z = method.randn("synthetic-train", batch["position"], 16)
    w = repeat_w(method.G.mapping(z), method.G.num_ws)
    torch.testing.assert_close(wp[:, 4:], w[:, 4:])
    torch.testing.assert_close(wp[:, :4], method.G.w_avg.lerp(w[:, :4], 0.7))
    other = method.model.sample(batch | {"synthetic": RECIPE | {"split": "val"}}, method.seed)
    assert (other - wp).abs().max() > 0.1


def test_images_are_those_of_the_codes(method):
    batch = {"position": torch.arange(2), "key": ["", ""], "synthetic": RECIPE}
    image = method.images(batch)
    torch.testing.assert_close(
        image, method.G.synthesis(method.model.sample(batch, method.seed), noise="const")
    )
    assert method.base_code(image).shape == (2, 8, 8, 8)
    losses = method.loss_enc(image, method.model.sample(batch, method.seed))
    assert losses["mse"][1].shape == (2,) and losses["mse"][1].requires_grad


def test_refuses_a_dataset_of_images(method):
    with pytest.raises(ConfigError, match=r"bdinvert with a dataset of images; .*synthetic"):
        method.images({"image": torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "key": [""]})


def test_smaller_never_enlarges():
    image = torch.rand(1, 3, 64, 64)
    assert smaller(image, 128) is image
    assert smaller(image, 16).shape[-1] == 16


def test_an_image_with_fewer_pixels_than_eight_a_cell_is_enlarged_for_the_encoder(method):
    """16 x 16 cells of a generator of 64 px."""
    encoder = BaseCodeEncoder(side=16, channels=8, input_nc=3, channel_base=4, channel_max=8)
    seen = []
    encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.E = encoder.eval()
    image = F.interpolate(torch.rand(1, 3, 8, 8) * 2 - 1, 64, mode="bilinear")
    assert method.base_code(image).shape == (1, 8, 16, 16)
    assert seen[0].shape[-2:] == (128, 128) and seen[0].abs().max() <= 1
    torch.testing.assert_close(F.avg_pool2d(seen[0], 2), image, atol=0.02, rtol=0)
