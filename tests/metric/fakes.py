"""A generator whose images are its codes, so that numbers can be told by hand."""

import torch

from ganinv.backbone.probe import Head, Look, Probe
from ganinv.core.interface import Inversion
from ganinv.metric.metric import Given


class Generator(torch.nn.Module):
    """mapping: z of length 1. Codes [B,2,3] to images of one colour, the first layer's."""

    num_ws, w_dim, z_dim, resolution = 2, 3, 3, 8

    def mapping(self, z):
        return z / z.norm(dim=1, keepdim=True)


class Model:
    """Renders wp[:, 0] as a colour."""

    G = Generator()

    def render(self, found, size=None, noise="const", seeds=None):
        wp = found.wp if isinstance(found, Inversion) else found
        return wp[:, 0, :, None, None].expand(-1, -1, *(size or (8, 8)))


class Along:
    """Adds `strength` of a vector to every layer."""

    needs_f, sha256 = False, None

    def __init__(self, vector, strengths=(0.0, 1.0)):
        self.vector, self.strengths = torch.tensor(vector), list(strengths)

    def __call__(self, found, strength):
        length = torch.as_tensor(strength).float().reshape(-1, 1, 1)
        return Inversion(found.wp + length * self.vector)

    def label(self, strength):
        return f"{strength:+g}"


class Colour(torch.nn.Module):
    """The mean of each channel as features."""

    def features(self, image):
        return image.mean((2, 3))


def probe(*tests):
    """Of red, green and blue, as good as said."""
    names = ("red", "green", "blue")
    heads = [Head(name, "number", test) for name, test in zip(names, tests, strict=True)]
    look = Look("colour", (), 1, (8, 8))
    return Probe(look, heads, torch.eye(3), torch.zeros(3), Colour())


def given(edits, *, probe=None, encodes_images=True):
    return Given(edits, encodes_images, lambda path: probe)


def colours(*values):
    """Codes of these colours [B,2,3]."""
    return torch.tensor(values)[:, None].repeat(1, 2, 1)
