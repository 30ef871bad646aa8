"""State dicts for NVIDIA's and genforce's code: their keys and shapes, there and back again."""

import pytest
import torch

from ganinv.core.errors import ConfigError, WeightsError
from ganinv.generator.importer import nvidia_state
from ganinv.generator.importer.load import load_generator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.interop import imported, plain
from ganinv.interop.encoder import ENCODERS
from ganinv.inversion.model import Model
from ganinv.task.image import Image
from tests.generator.test_stylegan3 import TINY as STYLEGAN3
from tests.golden_tools import case
from tests.interop.models import TINY, stylegan2, tiny

FIRST = {
    "z_dim": 16, "w_dim": 16, "resolution": 16, "img_channels": 3, "mapping_layers": 2,
    "layerwise": True, "channel_base": 128, "channel_max": 8, "final_tanh": True,
}  # fmt: skip


def shapes(state):
    return {key: list(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("classes", [0, 5])
def test_nvidia_s_keys_of_stylegan2(classes):
    golden = case(f"stylegan2_ada_generator_64_c{classes}")
    metadata = golden.ctor
    generator = StyleGAN2Generator(
        z_dim=metadata["z_dim"], c_dim=classes, w_dim=metadata["w_dim"], img_channels=3,
        resolution=metadata["img_resolution"],
        mapping_layers=metadata["mapping_kwargs"]["num_layers"],
        channel_base=metadata["synthesis_kwargs"]["channel_base"],
        channel_max=metadata["synthesis_kwargs"]["channel_max"], conv_clamp=256,
    )  # fmt: skip
    file = nvidia_state.export_state(generator)
    theirs = file["stylegan2_ada"]  # what the golden file's own class was made with
    assert theirs == {"class": "training.networks.Generator", "init_kwargs": metadata}
    nested = dict(metadata)
    flat = nested.pop("synthesis_kwargs")
    assert file["init_kwargs"] == nested | flat
    assert shapes(file["G_ema"]) == {k: v["shape"] for k, v in golden.spec["state"].items()}
    assert file["class"] == "training.networks_stylegan2.Generator"


def ada(
    z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, synthesis_kwargs=None
):
    """The arguments of training.networks.Generator in stylegan2-ada-pytorch."""
    return networks_stylegan2_synthesis(**synthesis_kwargs)


def stylegan3(z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, **synthesis):
    """Those of networks_stylegan2.Generator in stylegan3."""
    return networks_stylegan2_synthesis(**synthesis)


def networks_stylegan2_synthesis(
    channel_base=32768, channel_max=512, num_fp16_res=4, conv_clamp=256, fp16_channels_last=False
):
    return channel_base, channel_max, num_fp16_res, conv_clamp


def test_each_repository_s_class_takes_its_own_arguments():
    """As Python binds them; the form of the one repository is refused by the other's class."""
    file = nvidia_state.export_state(stylegan2(16, shape=TINY, clamp=100))
    own = TINY["channel_base"], TINY["channel_max"], 0, 100
    assert stylegan3(**file["init_kwargs"]) == ada(**file["stylegan2_ada"]["init_kwargs"]) == own
    for maker, arguments in ((ada, file["init_kwargs"]),
                             (stylegan3, file["stylegan2_ada"]["init_kwargs"])):  # fmt: skip
        with pytest.raises(TypeError):
            maker(**arguments)
    third = nvidia_state.export_state(StyleGAN3Generator(**STYLEGAN3))
    assert third["class"] == "training.networks_stylegan3.Generator"
    recorded = case("stylegan3_r_generator_64").ctor
    assert set(recorded) <= set(third["init_kwargs"]) and "stylegan2_ada" not in third


@pytest.mark.parametrize("form", ["stylegan3", "stylegan2_ada"])
def test_a_file_of_either_repository_is_read(form):
    generator = stylegan2(16, shape=TINY, clamp=100)
    file = nvidia_state.export_state(generator)
    theirs = file.pop("stylegan2_ada")
    back = nvidia_state.import_state(file if form == "stylegan3" else file | theirs)
    assert back.architecture == generator.architecture
    wp = torch.randn(1, generator.num_ws, generator.w_dim)
    assert torch.equal(back.synthesis(wp), generator.synthesis(wp))


def test_nvidia_s_file_comes_back(tmp_path):
    generator = stylegan2(16, shape=TINY | {"mapping_width": 24}, clamp=256)
    plain.write_nvidia(tmp_path / "g.pt", generator)
    back = load_generator(weights=str(tmp_path / "g.pt"), resolution=16, kind=None, origin=None)
    assert back.architecture == generator.architecture
    for key, value in generator.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_nvidia_s_file_of_stylegan3_comes_back(tmp_path):
    generator = StyleGAN3Generator(**STYLEGAN3)
    plain.write_nvidia(tmp_path / "g.pt", generator)
    back = load_generator(weights=str(tmp_path / "g.pt"), resolution=None, kind=None, origin=None)
    assert back.architecture == generator.architecture
    wp = torch.randn(1, generator.num_ws, generator.w_dim)
    assert torch.equal(back.synthesis(wp), generator.synthesis(wp))


def idinvert_model():
    generator = StyleGANGenerator(**FIRST)
    generator.mapping.w_avg.normal_()
    settings = {"num_ws": 6, "w_dim": 16, "input_size": 16, "input_nc": 3}
    settings |= {"channel_base": 4, "channel_max": 16}
    encoder = ENCODERS["DomainGuidedEncoder"](**settings)
    return Model(
        encoder=encoder, generator=generator, task=Image(), architecture=settings,
        start_from_w_avg=False,
    ).freeze()  # fmt: skip


def test_genforce_s_pair_comes_back(tmp_path):
    model = idinvert_model()
    paths = plain.write_genforce(tmp_path / "mine", model)
    assert [p.name for p in paths] == ["mine_generator.pth", "mine_encoder.pth"]
    generator = load_generator(weights=str(paths[0]), resolution=16, kind=None, origin=None)
    back = imported.idinvert(torch.load(paths[1], weights_only=True), generator)
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    for mine, theirs in zip(model(image), back(image), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    again = plain.write_genforce(tmp_path / "again", back)
    for first, second in zip(paths, again, strict=True):
        one, two = (torch.load(path, weights_only=True) for path in (first, second))
        assert set(one) == set(two) and all(torch.equal(one[k], two[k]) for k in one)


def test_genforce_s_keys():
    golden = case("idinvert_encoder_256")
    settings = {"num_ws": 14, "w_dim": 64, "input_size": 256, "input_nc": 3}
    with torch.device("meta"):
        encoder = ENCODERS["DomainGuidedEncoder"](**settings, channel_base=8, channel_max=128)
    expected = {k: v["shape"] for k, v in golden.spec["state"].items()}
    assert shapes(encoder.state_dict()) == expected


def test_refusals(tmp_path):
    def refused(words, function, *given):
        with pytest.raises(ConfigError, match=words):
            function(tmp_path / "x", *given)

    first = StyleGANGenerator(**FIRST)
    refused("and a StyleGAN .v1.; .*export with --to safetensors", plain.write_nvidia, first)
    refused("--to genforce, and a StyleGAN2Generator", plain.write_genforce, tiny())
    mixed = StyleGANGenerator(**FIRST | {"final_tanh": False})
    refused("layerwise=True, final_tanh=False; expected both", plain.write_genforce, mixed)
    model = tiny()
    model.G = first
    refused("an encoder of class Encoder4Editing", plain.write_genforce, model)


def test_an_encoder_of_another_generator():
    state = idinvert_model().E.state_dict()
    other = StyleGANGenerator(**FIRST | {"resolution": 32})
    with pytest.raises(WeightsError, match="codes of 96 numbers; expected 128: 8 layers of 16"):
        imported.idinvert(state, other)
    with pytest.raises(WeightsError, match="no code layer"):
        imported.idinvert({k: v for k, v in state.items() if "fc" not in k}, other)


def test_strange_files_of_nvidia_s_state():
    good = nvidia_state.export_state(stylegan2(16, shape=TINY))

    def refused(words, **changes):
        with pytest.raises(WeightsError, match=words):
            nvidia_state.import_state(good | changes)

    arguments = good["init_kwargs"]
    refused("the class 'os.system'; expected one of training", **{"class": "os.system"})
    refused("settings without 'z_dim'", init_kwargs={})
    refused(
        "a strange resolution|make no StyleGAN2Generator .resolution=",
        init_kwargs=arguments | {"img_resolution": 1 << 40},
    )
    refused(
        "a strange z_dim|make no StyleGAN2Generator .z_dim=",
        init_kwargs=arguments | {"z_dim": "16"},
    )
    refused("no state dict|expected a state dict", G_ema=[1])
    refused("with no mapping.w_avg, no mapping.fc0.weight|make no StyleGAN2Generator", G_ema={})
