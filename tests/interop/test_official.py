"""The released code's checkpoints: every key and shape, what `opts` says, there and back again, and
what cannot be written."""

import json
import pickletools
import zipfile

import pytest
import torch

from ganinv.core.errors import ConfigError, WeightsError
from ganinv.generator.importer import rosinality
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.interop import imported, official, plain
from tests.golden_tools import GOLDEN, case
from tests.interop.models import TINY, WIDE, model_of, shapes_only, stylegan2, tiny

DECODERS = {256: 135, 512: 153, 1024: 171}  # tensors of the generator, counted on the released code


def golden_shapes(name):
    file = GOLDEN / f"{name}.json"
    if file.is_file():
        return {key: entry["shape"] for key, entry in json.loads(file.read_text())["state"].items()}
    table = json.loads((GOLDEN / f"{name}.keys.json").read_text())
    return {key: entry["shape"] for key, entry in table.items()}


def part(state, prefix):
    return {k.removeprefix(prefix): list(v.shape) for k, v in state.items() if k.startswith(prefix)}


TABLES = [
    ("psp", "GradualStyleEncoder", 256, "psp_encoder_256", "GradualStyleEncoder"),
    ("psp", "GradualStyleEncoder", 1024, "psp_encoder_1024", "GradualStyleEncoder"),
    ("psp", "WEncoder", 256, "psp_w_encoder", "BackboneEncoderUsingLastLayerIntoW"),
    ("psp", "WPlusEncoder", 256, "psp_wplus_encoder", "BackboneEncoderUsingLastLayerIntoWPlus"),
    ("e4e", "Encoder4Editing", 256, "e4e_encoder_256", "Encoder4Editing"),
    ("e4e", "Encoder4Editing", 1024, "e4e_encoder_1024", "Encoder4Editing"),
    ("e4e", "GradualStyleEncoder", 1024, "psp_encoder_1024", "GradualStyleEncoder"),
    ("e4e", "WEncoder", 256, "psp_w_encoder", "SingleStyleCodeEncoder"),
    ("restyle", "ReStyleEncoder", 256, "restyle_encoder_256", "BackboneEncoder"),
    ("restyle", "ReStyleEncoder4Editing", 256, "restyle_encoder_256", "ProgressiveBackboneEncoder"),
]


@pytest.mark.parametrize(("to", "kind", "size", "golden", "name"), TABLES)
def test_every_key_and_shape_is_the_released_code_s(to, kind, size, golden, name):
    file = official.content(shapes_only(kind, size), to)
    assert set(file) == {"state_dict", "latent_avg", "opts"}
    assert part(file["state_dict"], "encoder.") == golden_shapes(golden)
    assert part(file["state_dict"], "decoder.") == golden_shapes(f"rosinality_generator_{size}")
    prefixes = {key.split(".")[0] for key in file["state_dict"]}
    assert prefixes == {"encoder", "decoder"}
    assert file["opts"]["encoder_type"] == name
    assert len(part(file["state_dict"], "decoder.")) == DECODERS[size]


@pytest.mark.parametrize(
    ("kind", "size", "count"),
    [
        ("GradualStyleEncoder", 1024, 792),
        ("Encoder4Editing", 512, 746),
        ("Encoder4Editing", 256, 700),
    ],
)
def test_tensors_in_all(kind, size, count):
    assert len(official.content(shapes_only(kind, size), "e4e")["state_dict"]) == count


def test_the_average_and_the_options():
    file = official.content(shapes_only("WEncoder", 256), "psp")
    assert file["latent_avg"].shape == (1, 512) and file["opts"]["learn_in_w"] is True
    file = official.content(shapes_only("WEncoder", 256), "e4e")
    assert file["latent_avg"].shape == (14, 512) and file["opts"]["learn_in_w"] is False
    opts = official.content(shapes_only("Encoder4Editing", 1024), "e4e", "church_encode")["opts"]
    assert (opts["stylegan_size"], opts["output_size"], opts["n_styles"]) == (1024, 1024, 18)
    assert opts["start_from_latent_avg"] is True and opts["dataset_type"] == "church_encode"
    cars = shapes_only("Encoder4Editing", 512, input_size=[192, 256])
    assert official.content(cars, "e4e")["opts"]["dataset_type"] == "cars_encode"
    sketches = shapes_only("GradualStyleEncoder", 256, input_nc=19)
    assert official.content(sketches, "psp")["opts"]["label_nc"] == 19
    plain = (str, int, float, bool, type(None))
    assert all(type(value) in plain for value in opts.values())
    assert {"encoder_type", "input_nc", "checkpoint_path", "device", "label_nc"} <= set(opts)


def test_the_file_names_nothing_but_tensors(tmp_path):
    """What torch 1.6 and `weights_only` can read: no class of anyone's."""
    path = tmp_path / "w.pt"
    official.write(path, model_of("WEncoder", stylegan2(8)), "psp")
    with zipfile.ZipFile(path) as file:
        (name,) = [n for n in file.namelist() if n.endswith("data.pkl")]
        operations = list(pickletools.genops(file.read(name)))
    named = {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
    assert named == {
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "torch LongStorage",
        "collections OrderedDict",
    }
    assert operations[0][1] == 2  # the protocol
    content = torch.load(path, weights_only=True)
    for tensor in [*content["state_dict"].values(), content["latent_avg"]]:
        assert type(tensor) is torch.Tensor and tensor.is_contiguous()
        assert tensor.dtype in (torch.float32, torch.int64) and not tensor.requires_grad


# ------------------------------------------------------------------ there and back again


def same(first, second):
    assert list(first["state_dict"]) == list(second["state_dict"])
    for key, value in first["state_dict"].items():
        other = second["state_dict"][key]
        assert value.dtype == other.dtype and torch.equal(value, other), key
    assert torch.equal(first["latent_avg"], second["latent_avg"])
    assert first["opts"] == second["opts"]


@pytest.mark.parametrize(
    ("to", "kind", "start"),
    [
        pytest.param("psp", "WEncoder", True, marks=pytest.mark.nightly),
        ("psp", "WPlusEncoder", False),
        ("psp", "GradualStyleEncoder", True),
        ("e4e", "Encoder4Editing", True),
        pytest.param("e4e", "WEncoder", True, marks=pytest.mark.nightly),
        pytest.param("restyle", "ReStyleEncoder", True, marks=pytest.mark.nightly),
        ("restyle", "ReStyleEncoder4Editing", True),
        pytest.param("restyle", "ReStyleResNetEncoder", True, marks=pytest.mark.nightly),
        pytest.param("restyle", "ReStyleResNetEncoder4Editing", True, marks=pytest.mark.nightly),
    ],
)
@torch.inference_mode()
def test_round_trip(tmp_path, to, kind, start):
    """Export, import, export: the same bytes of every tensor; and the same reconstructions."""
    with torch.inference_mode(False):
        mine = model_of(kind, stylegan2(8), start=start)
    mine.refinements = 2 if mine.refinements else 0
    official.write(tmp_path / "a.pt", mine, to)
    first = torch.load(tmp_path / "a.pt", weights_only=True)
    back = imported.read(first)
    assert back.kind == kind and back.start_from_w_avg == start
    assert back.refinements == mine.refinements
    same(first, official.content(back, to))
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    (wp, x_hat), (wp_back, x_back) = mine(image), back(image)
    assert (wp - wp_back).abs().max() <= 1e-5 and (x_hat - x_back).abs().max() <= 1e-5
    assert x_hat.std() > 0.1


@pytest.mark.slow
def test_golden_tensors_of_e4e_at_256(tmp_path):
    """The released networks' own outputs through import, export and import."""
    encoder, decoder = case("e4e_encoder_256"), case("rosinality_generator_256")
    state = {f"encoder.{key}": value for key, value in encoder.state().items()}
    theirs = decoder.state()
    state |= {f"decoder.{key}": value for key, value in theirs.items()}
    average = torch.zeros(14, 512)
    opts = {"encoder_type": "Encoder4Editing", "stylegan_size": 256, "start_from_latent_avg": True}
    found = imported.read({"state_dict": state, "latent_avg": average, "opts": opts})
    again = official.content(found, "e4e")["state_dict"]
    assert set(again) == set(state)
    assert all(torch.equal(again[key], value) for key, value in state.items())
    with torch.inference_mode():
        assert encoder.error("codes", found.encode(encoder.input("image256"))) < 1e-5
        assert decoder.error("image", found.render(decoder.input("w_plus"))) < 1e-5


# ------------------------------------------------------------------ refusals


def refused(words, model, to, *more):
    with pytest.raises(ConfigError, match=words):
        official.content(model, to, *more)


def test_an_encoder_is_never_relabelled():
    refused(
        "--to psp, and an encoder of class Encoder4Editing, which has no class there .relabelled, "
        "it would load and give other codes.*To fix: export with --to e4e",
        shapes_only("Encoder4Editing", 256),
        "psp",
    )
    refused("class ReStyleEncoder.*--to restyle", shapes_only("ReStyleEncoder", 256), "e4e")
    refused("class Encoder4Editing.*--to e4e", shapes_only("Encoder4Editing", 256), "restyle")
    refused("class WPlusEncoder.*--to psp", shapes_only("WPlusEncoder", 256), "e4e")


def test_what_the_released_classes_cannot_build():
    refused(
        "the trunk ir_se_small; expected the trunk ir_se50: omertov.*--to safeten", tiny(), "e4e"
    )
    wide = shapes_only("GradualStyleEncoder", 256, input_size=[192, 256])
    refused("images of 192 x 256 px; expected 256 x 256 px", wide, "psp")
    sketches = shapes_only("GradualStyleEncoder", 256, input_nc=1)
    refused("of 1 image channels; expected 3, RGB.*To fix: export with --to psp", sketches, "e4e")
    six = shapes_only("GradualStyleEncoder", 256, input_nc=6)
    refused("class GradualStyleEncoder, which has no class there", six, "restyle")
    absolute = shapes_only("ReStyleEncoder", 256, start=False)
    refused("absolute codes .start_from_w_avg: false", absolute, "restyle")
    refused("--dataset-type cats; expected one of ffhq_encode, cars",
            shapes_only("Encoder4Editing", 256), "e4e", "cats")  # fmt: skip


def with_generator(generator):
    model = shapes_only("WEncoder", 8)
    model.G = generator
    return model


def test_generators_that_the_released_code_cannot_build():
    refused("w_dim=16, mapping_layers=2, mapping_width=16; expected 512, 512, 8 and 512",
            with_generator(stylegan2(8, shape=TINY)), "psp")  # fmt: skip
    half = TINY | {"z_dim": 512, "w_dim": 512, "mapping_layers": 8}
    refused("of 8 channels at 4 px; expected 512 .channel multiplier 2",
            with_generator(stylegan2(8, shape=half)), "psp")  # fmt: skip
    refused("c_dim=3", with_generator(stylegan2(8, c_dim=3)), "psp")
    first = StyleGANGenerator(
        z_dim=16, w_dim=16, resolution=8, img_channels=3, mapping_layers=2, layerwise=False,
        channel_base=64, channel_max=8, final_tanh=False,
    )  # fmt: skip
    refused(
        "a StyleGANGenerator; expected an unconditional StyleGAN2", with_generator(first), "psp"
    )


def test_a_clamp_that_matters_is_refused_and_one_that_does_not_is_left_out():
    """The layout has no clamp: NVIDIA's 256 is hardly ever reached."""
    loose, tight = stylegan2(8, clamp=256), stylegan2(8, clamp=0.5)
    assert official.clamp_difference(stylegan2(8)) == 0
    assert official.clamp_difference(loose) < 1e-6
    official.check_exportable(with_generator(loose), "psp")
    refused("whose conv_clamp=0.5 changes its images .by .*expected no clamp",
            with_generator(tight), "psp")  # fmt: skip


# ------------------------------------------------------------------ import


def small_file(kind="WEncoder", to="psp"):
    return official.content(model_of(kind, stylegan2(8)), to)


def test_older_files_and_other_averages():
    """Average as [512], [1,512], [L,512] or absent; opts of 2020 without learn_in_w."""
    file = small_file()
    average = file["latent_avg"][0]
    file["opts"] = {"encoder_type": file["opts"]["encoder_type"]}
    for value in (average, average[None], average.repeat(4, 1)):
        found = imported.read(file | {"latent_avg": value})
        assert torch.equal(found.G.w_avg, average) and found.start_from_w_avg
    estimated = imported.read({k: v for k, v in file.items() if k != "latent_avg"})
    assert estimated.G.w_avg.abs().sum() > 0
    bare = dict(file["state_dict"])  # the names of the networks only
    assert imported.is_official(bare) and imported.read(bare).kind == "WEncoder"
    hyperstyle = file | {"opts": {"encoder_type": "WEncoder", "output_size": 8}}
    assert imported.read(hyperstyle).kind == "WEncoder"


def test_import_refusals():
    file = small_file("Encoder4Editing", "e4e")

    def refused(words, **changes):
        with pytest.raises(WeightsError, match=words):
            imported.read(file | changes)

    refused("encoder_type=None; expected one of Gradual.*offsets from the first one", opts={})
    refused("encoder_type='Mine'", opts={"encoder_type": "Mine"})
    refused("a latent_avg of 4 layers that differ", latent_avg=torch.randn(4, 512))
    state = file["state_dict"]
    without = {k: v for k, v in state.items() if "styles.2.linear.bias" not in k}
    refused("Encoder4Editing of 4 layers with no styles.2.linear.bias", state_dict=without)
    refused("an unknown extra", state_dict=state | {"encoder.extra": torch.zeros(1)})
    key = "encoder.latlayer1.bias"
    refused(r"latlayer1.bias of \[3\] instead of \[512\]", state_dict=state | {key: torch.zeros(3)})
    refused("entries of state_dict that are no tensors", state_dict=state | {key: "text"})
    encoder = {k: v for k, v in state.items() if k.startswith("encoder")}
    refused("encoder.. and no decoder", state_dict=encoder)
    pyramid = {"encoder_type": "GradualStyleEncoder", "n_iters_per_batch": 5}
    refused("a ReStyle encoder with a feature pyramid; expected one without", opts=pyramid)
    resnet = {"encoder.conv1.weight": torch.zeros(64, 6, 7, 7)}
    decoder = {k: v for k, v in state.items() if k.startswith("decoder")}
    named = {"encoder_type": "ResNetBackboneEncoder"}
    words = r"ReStyleResNetEncoder of 4 layers with settings that make no .* \(num_ws=4\)"
    refused(words, state_dict=resnet | decoder, opts=named)
    pyramids = {"encoder_type": "ResNetGradualStyleEncoder"}
    refused("encoder_type='ResNetGradual", state_dict=resnet | decoder, opts=pyramids)
    many = {f"encoder.styles.{i}.linear.weight": torch.zeros(1) for i in range(5000)}
    refused("4997 more|unknown styles", state_dict=state | many)


def test_cars_with_18_heads_on_a_generator_of_16(tmp_path):
    """Released encoders for cars have 18 heads; what the last two say is dropped."""
    shape = WIDE | {"channel_base": 1024}
    generator = stylegan2(512, shape=shape)
    whole = model_of("Encoder4Editing", stylegan2(1024, shape=shape), input_size=[192, 256])
    assert (whole.num_ws, generator.num_ws) == (18, 16)
    state = {f"encoder.{k}": v for k, v in whole.E.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in rosinality.export_state(generator).items()}
    opts = {"encoder_type": "Encoder4Editing", "dataset_type": "cars_encode"}
    file = {"state_dict": state, "opts": opts, "latent_avg": torch.zeros(18, 512)}
    found = imported.read(file)
    assert found.num_ws == 16 and found.architecture["input_size"] == [192, 256]
    image = torch.rand(1, 3, 192, 256) * 2 - 1
    torch.testing.assert_close(found.E(image), whole.E(image)[:, :16])


def test_the_name_of_the_images_stays_and_a_new_one_may_be_given():
    model = model_of("WEncoder", stylegan2(8))

    def named(**more):
        return official.content(model, "e4e", **more)["opts"]["dataset_type"]

    assert named(was="church_encode") == "church_encode"
    assert named() == named(was="toonify") == named(was="cars_encode") == "ffhq_encode"
    assert named(was="church_encode", dataset_type="horse_encode") == "horse_encode"


@pytest.mark.parametrize("kind", ["Encoder4Editing", "ReStyleEncoder", "GradualStyleEncoder"])
def test_the_advice_of_a_refusal_is_no_second_refusal(kind, tmp_path):
    """Whatever a refusal says to use instead takes the model."""
    for model in (tiny(kind), shapes_only(kind, 256, input_size=[192, 256])):
        for to in official.TARGETS:
            try:
                official.check_exportable(model, to)
            except ConfigError as refusal:
                _, _, advised = str(refusal).partition("To fix: export with --to ")
                assert advised
                if (other := advised.split(" ")[0].rstrip(",")) in official.TARGETS:
                    official.check_exportable(model, other)
    with pytest.raises(ConfigError, match="To fix: export with --to safetensors"):
        plain.write_genforce(tmp_path / "x", tiny(kind))
