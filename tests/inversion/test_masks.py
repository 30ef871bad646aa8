"""Masks: what does not count has no say, and two images cross over into one (Image2StyleGAN++)."""

from dataclasses import replace

import torch

from tests.inversion import tiny
from tests.inversion.methods import image2stylegan

SEAM = slice(6, 10)  # columns of 16 between the two images, which count as nobody's


def composite(model):
    """The left of a and the right of b, with a seam between them that the mask leaves out."""
    a, b = (tiny.target(model, key) for key in "ab")
    x, mask = a.x.clone(), torch.ones(1, 1, 16, 16, dtype=torch.float64)
    x[..., 8:] = b.x[..., 8:]
    mask[..., SEAM] = 0
    return a.x, b.x, replace(a, x=x, mask=mask)


def test_a_crossover_has_either_side_of_either_image():
    """Nearer to a on the left and to b on the right than the other's own inversion is, and than
    the composite's where the right does not count."""
    model = tiny.model()
    a, b, target = composite(model)
    half, whole = target.mask.clone(), torch.ones_like(target.mask)
    half[..., SEAM.start :] = 0
    x = torch.cat([target.x, a, b, target.x])
    masks = torch.cat([target.mask, whole, whole, half])
    four = replace(tiny.target(model, "abcd"), x=x, mask=masks)
    images = model.render(image2stylegan(model, steps=40)(four))

    def error(of, columns):
        return (images - of)[..., columns].square().mean((1, 2, 3)).tolist()

    found, _, of_b, _ = error(a, slice(None, SEAM.start))
    assert found < 0.5 * of_b
    found, of_a, _, alone = error(b, slice(SEAM.stop, None))
    assert found < 0.5 * of_a and found < 0.5 * alone


def test_what_is_under_the_seam_has_no_say():
    """Nor has what is left out of each image of a batch with masks of their own."""
    model = tiny.model()
    _, _, target = composite(model)
    scribbled = target.x.clone()
    scribbled[..., SEAM] = 9.0
    method = image2stylegan(model)
    first = method(target)
    assert torch.equal(first.wp, method(replace(target, x=scribbled)).wp)
    assert not torch.equal(first.wp, method(replace(target, x=scribbled, mask=None)).wp)
    both = tiny.target(model, "ac")
    masks = torch.cat([target.mask, torch.ones_like(target.mask)])
    x = torch.cat([scribbled, both.x[1:]])
    together = method(replace(both, x=x, mask=masks)).wp
    torch.testing.assert_close(together[0], first.wp[0], rtol=0, atol=1e-9)
    alone = method(tiny.target(model, "c")).wp
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-9)
