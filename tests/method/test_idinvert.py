"""Where IDInvert's codes start, and which images its discriminator takes."""

import pytest
import torch

from ganinv.config.start_encoder import start_encoder, statistics_of_codes
from ganinv.core.errors import ConfigError
from ganinv.encoder.idinvert import DomainGuidedEncoder, DomainGuidedEncoder5x5
from ganinv.generator.importer.load import load_generator
from ganinv.loss.pixel import L2
from ganinv.loss.term import Terms
from ganinv.method.idinvert import IDInvert
from ganinv.task.image import Image

WEIGHTS = "stylegan2_avatars64"


def method(kind, init_std_scale, side=64):
    generator = load_generator(weights=WEIGHTS, resolution=64, kind="stylegan2", origin=None)
    shape = {"num_ws": generator.num_ws, "w_dim": generator.w_dim, "input_nc": 3}
    shape["input_size"] = side
    torch.manual_seed(0)
    encoder = kind(channel_base=4, channel_max=16, **shape)
    start_encoder(encoder, generator, init_std_scale=init_std_scale)
    return IDInvert(
        generator=generator,
        encoder=encoder,
        loss=Terms({"l2": L2(weight=1.0)}),
        task=Image(),
        optimizer=torch.optim.Adam,
        optimizer_D=torch.optim.Adam,
        discriminator_weights=WEIGHTS,
        gan_loss="wgan_gp",
        adversarial_weight=0.1,
        gamma=10.0,
        decay_every=None,
        noise="const",
        seed=0,
        micro_batches=1,
        clip_norm=None,
        max_nonfinite=3,
    )


@pytest.mark.parametrize("encoder", [DomainGuidedEncoder, DomainGuidedEncoder5x5])
def test_codes_start_like_the_generator_s_own(encoder):
    x = torch.randn(64, 3, 64, 64)
    plain, near = (method(encoder, spread).train() for spread in (None, 0.3))
    mean, deviation = statistics_of_codes(near.G)
    assert torch.equal(mean, statistics_of_codes(plain.G)[0])  # the same in every run
    torch.testing.assert_close(mean.mean(0), near.G.w_avg, rtol=0, atol=0.05)
    with torch.no_grad():
        released, codes = plain.encode(x), near.encode(x)
    assert released.mean((0, 1)).abs().max() < 0.05
    torch.testing.assert_close(released.std(0), torch.ones_like(mean), rtol=0, atol=0.05)
    torch.testing.assert_close(codes.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(codes.std(0), 0.3 * deviation, rtol=0.05, atol=0.02)


def test_images_of_another_size_than_the_discriminator_sees_are_refused():
    with pytest.raises(ConfigError, match=r"images of 128 x 128 px with a discriminator of 64 px; "
                       r"expected dataset.image_size=\[64,64\]"):  # fmt: skip
        method(DomainGuidedEncoder, None, side=128)
