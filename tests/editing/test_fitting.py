"""SeFa, GANSpace, InterFaceGAN and probes on tensors small enough to know the answer."""

import math

import numpy as np
import pytest
import torch

from ganinv.core.direction import Direction
from ganinv.core.errors import ConfigError
from ganinv.dataset.attributes import usual, values
from ganinv.editing.ganspace import ganspace
from ganinv.editing.interfacegan import boundary, choose, project
from ganinv.editing.probe import Split, fit
from ganinv.editing.samples import sample_w, spread
from ganinv.editing.sefa import SeFa, affine, factorise, sefa
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.inversion.diffusion import diffuse, paste

SHAPE = {"z_dim": 8, "w_dim": 8, "resolution": 16, "img_channels": 3, "mapping_layers": 2,
         "channel_base": 64, "channel_max": 8}  # fmt: skip


def stylegan(kind):
    torch.manual_seed(0)
    if kind == 1:
        G = StyleGANGenerator(layerwise=False, final_tanh=False, **SHAPE)
    elif kind == 2:
        G = StyleGAN2Generator(c_dim=0, conv_clamp=None, **SHAPE)
    else:
        G = StyleGAN3Generator(c_dim=0, num_layers=4, num_critical=2, margin_size=4, conv_kernel=3,
                               use_radial_filters=False, conv_clamp=None, **SHAPE)  # fmt: skip
    G.sha256 = "a" * 64
    return G.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def G():
    return stylegan(2)


def read_styles(G, wp):
    """What each affine layer is given, by the module."""
    seen = {}

    def note(module, given, result):
        seen[module] = given[0].clone()

    hooks = [
        m.register_forward_hook(note)
        for name, m in G.synthesis.named_modules()
        if name.endswith("affine")
    ]
    G.synthesis(wp)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_affine_of_a_layer_is_the_one_that_reads_it(kind):
    """A forward pass says which row of wp comes to which affine layer."""
    G = stylegan(kind)
    wp = torch.randn(1, G.num_ws, 8)
    seen = read_styles(G, wp)
    found = [affine(G, layer) for layer in range(G.num_ws)]
    assert len(set(map(id, found))) == G.num_ws
    for layer, module in enumerate(found):
        assert seen[module].equal(wp[:, layer])


def test_sefa_finds_what_changes_the_styles_most(G):
    A = torch.diag(torch.tensor([1.0, 3.0, 2.0]))
    vectors, eigenvalues = factorise(A, 2)
    torch.testing.assert_close(vectors, torch.tensor([[0.0, 1, 0], [0, 0, 1]]))
    assert eigenvalues.tolist() == pytest.approx([9, 4])
    found = sefa(G, layers=[1, 2], count=8, normalise=False)
    assert [d.name for d in found[:2]] == ["0", "1"] and found[0].layers == (1, 2)
    n = torch.cat([d.vectors for d in found])
    torch.testing.assert_close(n @ n.t(), torch.eye(8), atol=1e-5, rtol=0)
    parts = [affine(G, layer) for layer in (1, 2)]
    change = torch.cat([p(n) - p(torch.zeros_like(n)) for p in parts], 1).square().sum(1)
    torch.testing.assert_close(
        change, torch.tensor(found[0].fitted["eigenvalues"]), rtol=1e-4, atol=1e-5
    )
    assert change.tolist() == sorted(change.tolist(), reverse=True)
    w = torch.cat(list(sample_w(G, 3000, 5)))
    assert found[0].scale == pytest.approx(float((w @ n[0]).std()), rel=0.1)
    rows = torch.cat([p.weight * p.weight_gain for p in parts])
    unit = rows / rows.norm(dim=1, keepdim=True)
    first = sefa(G, layers=[1, 2], count=1, normalise=True)[0].vectors[0]
    expected = torch.linalg.eigh((unit.t() @ unit).double()).eigenvectors[:, -1].float()
    assert abs(float(first @ expected)) == pytest.approx(1, abs=1e-5)
    edit = SeFa(component=1, wp_layers=[1, 2], normalise=False, strengths=[-1, 1], generator=G)
    assert edit.direction.vectors.equal(found[1].vectors)


def test_ganspace_is_the_pca_of_w(G):
    found = ganspace(G, samples=2500, count=8, seed=3)
    w = torch.cat(list(sample_w(G, 2500, 3))).double()
    covariance = (w - w.mean(0)).t() @ (w - w.mean(0)) / len(w)
    for k, direction in enumerate(found):
        v = direction.vectors[0].double()
        torch.testing.assert_close(covariance @ v, direction.scale**2 * v, atol=1e-5, rtol=1e-3)
        assert k == 0 or direction.scale <= found[k - 1].scale
    assert sum(found[0].fitted["share_of_variance"]) == pytest.approx(1)
    assert spread(G, found[0].vectors, 2500, 3) == pytest.approx([found[0].scale], rel=1e-2)


def test_fits_that_cannot_be_are_refused(G):
    with pytest.raises(ConfigError, match=r"layers \[1, 9\]; expected layers from 0 to 5"):
        sefa(G, layers=[1, 9], count=1, normalise=False)
    for make in (lambda: sefa(G, layers=None, count=9, normalise=False),
                 lambda: ganspace(G, samples=10, count=9)):  # fmt: skip
        with pytest.raises(ConfigError, match=r"9 (directions|components); expected 1 to 8, the w"):
            make()
    with pytest.raises(ConfigError, match="4 components; expected at most"):
        ganspace(G, samples=3, count=4)
    with pytest.raises(ConfigError, match="1 samples; expected at least 2"):
        ganspace(G, samples=1, count=1)
    classes = StyleGAN2Generator(c_dim=3, conv_clamp=None, **SHAPE)
    with pytest.raises(ConfigError, match="a conditional generator; expected one whose W"):
        ganspace(classes, samples=10, count=1)


def test_a_boundary_lies_between_the_two_sides():
    """Codes on either side of x + y = 1: the normal and the intercept are known."""
    codes = torch.rand(4000, 2)
    scores = codes.sum(1) + 5
    found = boundary(codes, scores, name="x", ratio=0.3, seed=0, sha256="s")
    torch.testing.assert_close(found.vectors, torch.full((1, 2), math.sqrt(0.5)), atol=0.02, rtol=0)
    assert float(found.intercept) == pytest.approx(-math.sqrt(0.5), abs=0.03)
    assert found.scale == pytest.approx(float((codes @ found.vectors[0]).std()), rel=1e-5)
    assert found.fitted["accuracy"] == [1.0] and found.fitted["chosen"] == 2400
    sides = choose(scores, 0.01, "x")
    assert len(sides.positive) == len(sides.negative) == 40
    assert scores[sides.positive].min() > scores.sort().values[-41]
    assert scores[sides.negative].max() < scores.sort().values[40]
    again = boundary(codes, scores, name="x", ratio=0.3, seed=0, sha256="s")
    assert again.vectors.equal(found.vectors)
    above = (found.score(codes[:, None].expand(-1, 3, -1)) > 0) == (codes.sum(1) > 1)
    assert above.float().mean() > 0.97


def test_a_boundary_of_wp_has_one_normal_a_layer():
    codes = torch.randn(600, 3, 4)
    scores = codes[:, 0, 1] - codes[:, 2, 3]  # layer 1 knows nothing of it
    found = boundary(codes, scores, name="x", ratio=0.4, seed=0, sha256=None)
    assert found.vectors.shape == (3, 4) and found.fitted["space"] == "wp"
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(3))
    assert found.vectors[0, 1] > 0.98 and found.vectors[2, 3] < -0.98
    accuracy = found.fitted["accuracy"]
    assert accuracy[0] > 0.7 and accuracy[2] > 0.7 and accuracy[1] < 0.62


def test_labels_of_two_values_take_no_codes_of_the_other_side():
    labels = torch.zeros(500)
    labels[:20] = 1  # fewer than ratio asks for
    sides = choose(labels, 0.3, "x")
    assert len(sides.positive) == len(sides.negative) == 20 and labels[sides.positive].all()
    assert not labels[sides.negative].any()


def test_one_class_only_and_too_few_are_refused():
    with pytest.raises(ConfigError, match="smile: one class only, 50 codes of the score 1; expect"):
        choose(torch.ones(50), 0.02, "smile")
    labels = torch.zeros(500)
    labels[:3] = 1
    with pytest.raises(ConfigError, match="smile: 3 codes on each side; expected at least 10"):
        choose(labels, 0.5, "smile")
    with pytest.raises(ConfigError, match="x: 4 scores for 5 codes; expected one finite number"):
        boundary(torch.ones(5, 2), torch.ones(4), name="x", ratio=0.5, seed=0, sha256=None)
    with pytest.raises(ConfigError, match="expected one finite number"):
        nan = torch.full((5,), math.nan)
        boundary(torch.ones(5, 2), nan, name="x", ratio=0.5, seed=0, sha256=None)


def test_a_conditional_boundary_crosses_no_condition():
    n = Direction("smile", torch.tensor([[0.6, 0.8, 0.0]]), None, 2.0, torch.tensor([1.0]))
    age, pose = (Direction(name, torch.tensor([v])) for name, v in
                 (("age", [0.0, 1.0, 0.0]), ("pose", [0.0, 0.6, 0.8])))  # fmt: skip
    found = project(n, [age])
    torch.testing.assert_close(found.vectors, torch.tensor([[1.0, 0.0, 0.0]]))
    assert found.intercept is None and found.scale == 2 and found.fitted["projected_off"] == ["age"]
    for conditions in ([age, pose], [age, pose, age]):
        torch.testing.assert_close(project(n, conditions).vectors, torch.tensor([[1.0, 0.0, 0.0]]))
    with pytest.raises(ConfigError, match="smile projected off smile; expected conditions that it"):
        project(n, [n])
    with pytest.raises(ConfigError, match=r"condition age of \[1, 512\]; expected \[1, 3\]"):
        project(n, [Direction("age", torch.ones(1, 512))])


# ------------------------------------------------------------------ probes


def drawn(count, seed):
    random = np.random.default_rng(seed)
    h = random.standard_normal((count, 5)) * [1, 10, 1, 1, 0] + 3
    records = [
        {"tall": 2.0 * a - 1, "smile": bool(b > 3), "hair": "red" if c > 3 else "blond",
         "rgb": [float(c), 0.0], "luck": bool(random.uniform() < 0.5), "two": i < 2}
        for i, (a, b, c, _, _) in enumerate(h.tolist())
    ]  # fmt: skip
    return Split(torch.from_numpy(h).float(), records)


def test_probes_know_what_the_features_know_and_say_how_well():
    train, val, test = drawn(400, 0), drawn(100, 1), drawn(100, 2)
    names = ["tall", "smile", "hair=red", "rgb.0", "luck"]
    heads, weight, bias = fit(train, val, test, names)
    known = {head.name: head for head in heads}
    assert known["tall"].words.startswith("R2 0.99") or known["tall"].test > 0.999
    assert (
        known["smile"].test > 0.99 and known["hair=red"].test > 0.99 and known["rgb.0"].test > 0.99
    )
    assert known["luck"].kind == "yes_no" and known["luck"].test < 0.7
    torch.testing.assert_close((test.features.double() @ weight[0] + bias[0]),
                               values(test.records, "tall")[0], atol=0.5, rtol=0)  # fmt: skip
    assert usual(test.records[0]) == ["tall", "smile", "rgb.0", "rgb.1", "luck", "two"]


def test_attributes_that_cannot_be_are_refused():
    train = drawn(100, 0)

    def refused(words, *names, split=train):
        with pytest.raises(ConfigError, match=words):
            fit(split, train, train, names)

    refused("no attribute smlie; expected one of tall, smile, hair, rgb, luck", "smlie")
    refused("no attribute rgb.2", "rgb.2")
    refused("the attribute hair, '(red|blond)'; expected a number, or true or false", "hair")
    refused("hair=green: one class only, 0 in all 100 training images; expected", "hair=green")
    refused("rgb.1: one class only, 0 in all 100", "rgb.1")
    refused("two: 2 of 100 training images on one side; expected at least 10", "two")


# ------------------------------------------------------------------ semantic diffusion


def test_diffusion_inverts_the_composite_where_only_the_box_counts():
    target, context = torch.ones(2, 3, 8, 8), -torch.ones(2, 3, 8, 8)
    x, mask = paste(target, context, (0.25, 0.5, 0, 0.5))
    assert mask[0, 0].nonzero().tolist() == [[r, c] for r in (2, 3) for c in range(4)]
    assert torch.where(mask > 0, x == 1, x == -1).all()
    given = []
    diffuse(given.append, target, context, keys=["a", "b"], seeds=[1, 2], box=(0.25, 0.5, 0, 0.5))
    assert given[0].x.equal(x) and given[0].s.equal(x) and given[0].mask.equal(mask)
    assert given[0].key == ["a", "b"] and given[0].seeds == [1, 2]
    side = paste(torch.ones(1, 3, 256, 256), torch.zeros(1, 3, 256, 256))[1][0, 0]
    rows, columns = side.nonzero().unbind(1)
    edges = [int(v) for v in (rows.min(), rows.max(), columns.min(), columns.max())]
    assert edges == [90, 199, 70, 179]  # as released
    with pytest.raises(ConfigError, match=r"the box \[0.5, 0.5, 0.0, 1.0\]; expected top < bottom"):
        paste(target, context, (0.5, 0.5, 0, 1))
    with pytest.raises(ConfigError, match="two batches of the same size"):
        paste(target, context[:1])
