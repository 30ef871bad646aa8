"""NVIDIA's files: what is in them comes out bit for bit, variants and code are refused."""

import os
import random
import tempfile
import time
from pathlib import Path

import pytest
import torch

from ganinv.core.errors import WeightsError, WeightsMissing
from ganinv.discriminator.stylegan2 import StyleGAN2Discriminator
from ganinv.generator.importer import nvidia
from ganinv.generator.importer.load import load_discriminator, load_generator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from tests.generator import nvidia_files as files
from tests.generator import test_stylegan2, test_stylegan3


def stylegan2(**changes):
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**{**test_stylegan2.TINY, **changes})
    for value in generator.state_dict().values():
        value.normal_()
    return generator


def critic(**changes):
    torch.manual_seed(1)
    settings = {"c_dim": 0, "resolution": 16, "img_channels": 3, "channel_base": 128}
    settings |= {"channel_max": 8, "conv_clamp": 256, "mbstd_group_size": 2}
    return StyleGAN2Discriminator(**settings | changes)


def stylegan3(**changes):
    generator = test_stylegan3.tiny(**changes)
    for name, value in generator.state_dict().items():
        if not name.endswith(("_filter", "transform", "magnitude_ema")):
            value.normal_()
    return generator


GENERATORS = {
    "stylegan2": (stylegan2, {}, True),
    "stylegan2 with clamp and labels": (stylegan2, {"conv_clamp": 256, "c_dim": 3}, True),
    "stylegan2 of stylegan3's release": (stylegan2, {"conv_clamp": 256}, False),
    "stylegan2 with a mapping network of its own width": (stylegan2, {"mapping_width": 12}, True),
    "stylegan3-t": (stylegan3, {}, False),
    "stylegan3-r": (stylegan3, test_stylegan3.ROTATION, False),
    "stylegan3-t with labels": (stylegan3, {"c_dim": 2}, False),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_comes_out_bit_for_bit(tmp_path, kind):
    make, changes, nested = GENERATORS[kind]
    original, path = make(**changes), tmp_path / "network.pkl"
    path.write_bytes(files.dump(files.content(original, nested=nested)))
    loaded = load_generator(
        weights=str(path), resolution=original.resolution, kind=None, origin=None
    )
    assert type(loaded) is type(original)
    assert loaded.architecture == original.architecture
    assert list(loaded.state_dict()) == list(original.state_dict())
    for key, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert len(loaded.sha256) == 64 and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(protocol):
    data = files.dump(files.content(stylegan2(), critic()), protocol)
    loaded = nvidia.import_generator(read(data))
    assert torch.equal(loaded.synthesis.b4.const, stylegan2().synthesis.b4.const)


def read(data):
    """Through a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pkl"
        path.write_bytes(data)
        return nvidia.read(path)


@pytest.mark.parametrize("labels", [0, 3])
def test_a_discriminator_comes_out_too(tmp_path, labels):
    original, path = critic(c_dim=labels), tmp_path / "network.pkl"
    path.write_bytes(files.dump(files.content(stylegan2(), original)))
    found = load_discriminator(weights=str(path), origin=None)
    assert found.kind == "StyleGAN2Discriminator"
    assert found.architecture == original.architecture
    loaded = found.build(StyleGAN2Discriminator)
    for key, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_frozen_weights_are_buffers_and_strides_are_kept_out():
    """Freeze-D turns parameters into buffers; fp16_channels_last leaves strided weights."""
    generator = stylegan2()

    def edit(name, state):
        if name == "synthesis.b8.conv0":
            weight = state["_parameters"].pop("weight")
            state["_buffers"]["weight"] = weight.detach().to(memory_format=torch.channels_last)
            state["_parameters"]["absent"] = None
            state["_buffers"]["passing"] = torch.zeros(3)
            state["_non_persistent_buffers_set"].add("passing")

    loaded = nvidia.import_generator(read(files.dump(files.content(generator, edit=edit))))
    weight = loaded.synthesis.b8.conv0.weight
    assert torch.equal(weight, generator.synthesis.b8.conv0.weight)
    assert isinstance(weight, torch.nn.Parameter) and weight.is_contiguous()


def test_the_clamp_is_the_layer_s_or_as_told():
    def forget(name, state):
        del state["conv_clamp"]

    found = files.content(stylegan2(conv_clamp=256), edit=forget)
    found["G_ema"].meta["state"]["_init_kwargs"]["synthesis_kwargs"]["conv_clamp"] = 128
    assert nvidia.import_generator(read(files.dump(found))).architecture["conv_clamp"] == 128
    del found["G_ema"].meta["state"]["_init_kwargs"]["synthesis_kwargs"]["conv_clamp"]
    with pytest.raises(WeightsError, match="without a readable conv_clamp"):
        nvidia.import_generator(read(files.dump(found)))


def test_networks_that_nvidia_converted_from_tensorflow():
    """They carry every setting, most of them as it is anyway."""
    found = files.content(stylegan2(), critic())
    found["G_ema"].meta["state"]["_init_kwargs"].update(
        mapping_kwargs=files.EasyDict(
            num_layers=2, embed_features=None, layer_features=8, activation="lrelu",
            lr_multiplier=0.01, w_avg_beta=1,
        ),
        synthesis_kwargs=files.EasyDict(
            channel_base=128, channel_max=8, num_fp16_res=4, conv_clamp=None, architecture="skip",
            resample_filter=[1, 3, 3, 1], use_noise=True, activation="lrelu",
        ),
    )  # fmt: skip
    block = files.EasyDict(activation="lrelu", resample_filter=[1, 3, 3, 1], freeze_layers=0)
    mapping = files.EasyDict(num_layers=0, lr_multiplier=0.1)  # of labels, of which there are none
    found["D"].meta["state"]["_init_kwargs"].update(
        architecture="resnet", cmap_dim=None, block_kwargs=block, mapping_kwargs=mapping,
        epilogue_kwargs=files.EasyDict(mbstd_group_size=None, mbstd_num_channels=1),
    )  # fmt: skip
    read_again = read(files.dump(found))
    assert nvidia.import_generator(read_again).architecture == stylegan2().architecture
    settings, weights = nvidia.import_discriminator(read_again)
    loaded = StyleGAN2Discriminator(**settings)
    loaded.load_state_dict(weights)
    x = torch.randn(6, 3, 16, 16)
    torch.testing.assert_close(loaded(x), critic(mbstd_group_size=6)(x))
    found["D"].meta["state"]["_init_kwargs"]["c_dim"] = 3
    with pytest.raises(WeightsError, match="D.mapping_kwargs with lr_multiplier=0.1"):
        nvidia.import_discriminator(read(files.dump(found)))


def changed(**settings):
    """A file whose generator was made with other settings."""
    found = files.content(stylegan2())
    found["G_ema"].meta["state"]["_init_kwargs"].update(settings)
    return found


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"G": None}, "no Generator under 'G_ema'.*expected NVIDIA's dictionary"),
        (changed(fancy=1), "G_ema with fancy=1; expected a network of the usual architecture"),
        (changed(output_scale=0.5), "output_scale=0.5"),
        (changed(synthesis_kwargs={"resample_filter": [1, 2, 1]}), "resample_filter=a list"),
        (changed(synthesis_kwargs=3), "synthesis_kwargs is no dictionary"),
        (changed(z_dim="8"), "z_dim='8'; expected a whole number"),
        (changed(z_dim=1 << 40), "z_dim=.*; expected a whole number"),
        (changed(w_dim=1 << 20), "make no StyleGAN2Generator .w_dim=1048576"),
        (changed(w_dim=1 << 12), r"w_avg of \[8\] instead of \[4096\]"),
        (changed(z_dim=0), "settings that make no StyleGAN2Generator"),
        (changed(img_resolution=1 << 14), "img_resolution=16384; expected at most 8192"),
        (changed(img_resolution=24), "img_resolution=24; expected a power of two"),
        (changed(img_resolution=32), "without synthesis.b32.conv1.weight"),
        (changed(z_dim=9), r"mapping.fc0.weight of \[8, 8\] instead of \[8, 9\]"),
    ],
)
def test_variants_are_refused(found, words):
    with pytest.raises(WeightsError, match=words):
        nvidia.import_generator(read(files.dump(found)))


def test_tensors_too_many_or_too_few_are_refused():
    def drop(name, state):
        if name == "synthesis.b8.torgb":
            del state["_parameters"]["bias"]

    def add(name, state):
        if name == "synthesis.b8":
            state["_parameters"]["skip"] = torch.zeros(1)

    for edit, words in ((drop, "no synthesis.b8.torgb.bias"), (add, "unknown synthesis.b8.skip")):
        with pytest.raises(WeightsError, match=words):
            nvidia.import_generator(read(files.dump(files.content(stylegan2(), edit=edit))))


def test_a_file_larger_than_any_is_not_even_read(tmp_path):
    path = tmp_path / "sparse.pkl"
    with open(path, "wb") as file:
        file.write(b"\x80\x04")
        file.truncate(1 << 40)  # takes no space on the disk
    with pytest.raises(WeightsError, match=f"has {1 << 40} bytes; expected at most"):
        nvidia.read(path)


def test_other_files_say_what_they_are(tmp_path):
    with pytest.raises(WeightsMissing, match="no weights file"):
        nvidia.read(tmp_path / "nowhere.pkl")
    path = tmp_path / "tensorflow.pkl"
    path.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00.")
    with pytest.raises(WeightsError, match="dnnlib.tflib.*TensorFlow network: convert it with"):
        load_generator(weights=str(path), resolution=None, kind=None, origin=None)
    path.write_bytes(files.dump([1, 2]))
    with pytest.raises(WeightsError, match="holds a list; expected NVIDIA's dictionary"):
        load_generator(weights=str(path), resolution=None, kind=None, origin=None)
    path = tmp_path / "old.pkl"  # torch's formats stay torch's, whatever the name
    torch.save({"epoch": 3}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"entries \['epoch'\]; expected 'g_ema'"):
        load_generator(weights=str(path), resolution=None, kind=None, origin=None)


# ------------------------------------------------------------------ hostile files


class Command:
    """Would run a shell command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_the_source_in_a_file_is_not_run(tmp_path):
    """Neither the placeholder nor a payload: no record's source is ever read."""
    canary = tmp_path / "canary"
    found = files.content(stylegan2())
    found["G_ema"].meta["module_src"] = f"open({str(canary)!r}, 'w').close()"
    found["G_ema"].meta["class_name"] = "Generator"
    loaded = nvidia.import_generator(read(files.dump(found)))
    assert isinstance(loaded, StyleGAN2Generator) and not canary.exists()


PLACES = {
    "the file": lambda found, evil: found.update(extra=evil),
    "a record": lambda found, evil: found["G_ema"].meta.update(module_src=evil),
    "a state": lambda found, evil: found["G_ema"].meta["state"].update(size=evil),
    "the settings": lambda found, evil: found["G_ema"].meta["state"]["_init_kwargs"].update(x=evil),
    "the hooks": lambda found, evil: found["G_ema"].meta["state"].update(_backward_hooks=[evil]),
    "a tensor's place": lambda found, evil: found["G_ema"].meta["state"]["_buffers"].update(x=evil),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", PLACES)
def test_a_command_is_refused_wherever_it_hides(tmp_path, place, protocol):
    canary, found = tmp_path / "canary", files.content(stylegan2())
    PLACES[place](found, Command(f"touch {canary}"))
    with pytest.raises(WeightsError, match="asks for 'posix.system'.*never runs code"):
        read(files.dump(found, protocol))
    assert not canary.exists()


def looped(found):
    found["G_ema"].meta["state"]["_modules"]["again"] = found["G_ema"]


def doubled(found):
    module = files.Record("Conv2dLayer", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    for _ in range(60):  # two of the last one in the next: 2**60 paths
        modules = {"a": module, "b": module}
        module = files.Record("Conv2dLayer", {"_modules": modules})
    found["G_ema"].meta["state"]["_modules"]["deep"] = module


def wide(found):
    leaf = files.Record("Conv2dLayer", {"_parameters": dict.fromkeys(map(str, range(9000)))})
    many = {str(i): leaf for i in range(9000)}
    found["G_ema"].meta["state"]["_modules"]["wide"] = files.Record(
        "Conv2dLayer", {"_modules": many}
    )


def shared(found):
    weight = torch.zeros(1000)
    layer = found["G_ema"].meta["state"]["_modules"]["mapping"].meta["state"]
    stored = SameTensor(weight)
    layer["_buffers"] |= {"a": stored, "b": stored}


class SameTensor:
    """Pickled once and recalled."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return self.value.__reduce_ex__(4)


def change(**settings):
    return lambda found: found["G_ema"].meta.update(settings)


def state(**settings):
    return lambda found: found["G_ema"].meta["state"].update(settings)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (looped, "refused|modules inside modules without end"),
        (doubled, "modules inside modules without end"),
        (wide, "without end"),
        (shared, r"\d+ tensors in \d+ storages"),
        (change(version=7), "another form than NVIDIA's version 6"),
        (change(type="function"), "another form than NVIDIA's version 6"),
        (change(class_name="Popen"), "class 'Popen', which is none of StyleGAN's"),
        (change(class_name=["Generator"]), "which is none of StyleGAN's"),
        (change(state=[1]), "which is none of StyleGAN's"),
        (state(_modules=[1]), "whose _modules have no plain names"),
        (state(_modules={"x": {}}), "x, which is no module"),
        (state(_parameters={"x": 3}), "x, which is no tensor"),
        (state(_parameters={7: None}), "whose _parameters have no plain names"),
        (state(_parameters={"x" * 1000: None}), "whose _parameters have no plain names"),
        (state(_init_args=(1,)), "unnamed arguments"),
        (state(_init_kwargs=[]), "no dictionary of settings"),
    ],
)
def test_records_of_another_form_are_refused_fast(edit, words):
    found = files.content(stylegan2())
    del found["G"]
    edit(found)
    data = files.dump(found)
    begin = time.process_time()
    with pytest.raises(WeightsError, match=words):
        nvidia.import_generator(read(data))
    assert time.process_time() - begin < 3


def test_a_chain_of_modules_is_refused():
    """Deeper than any function that calls itself can follow, or free."""

    def level(name):
        text = b"\x8c" + bytes([len(name)]) + name
        return (
            b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(\x8c\x04type\x8c\x05class"
            b"\x8c\x07versionK\x06\x8c\x0aclass_name" + text
            + b"\x8c\x05state}\x8c\x08_modules}\x8c\x01xh\x00ssu\x85Rq\x000"
        )  # fmt: skip

    data = b"\x80\x04Nq\x000" + level(b"Conv2dLayer") * 8000 + level(b"Generator")
    data += b"}\x8c\x05G_emah\x00s."
    with pytest.raises(WeightsError, match="modules inside modules without end"):
        nvidia.import_generator(read(data))


def test_a_damaged_file_is_refused_or_read(tmp_path):
    """Cut and flipped; whatever is read is a whole network."""
    data = files.dump(files.content(stylegan2(), critic()))
    chance, path, good = random.Random(0), tmp_path / "network.pkl", 0
    for trial in range(150):
        damaged = bytearray(data)
        if trial % 3 == 0:
            del damaged[chance.randrange(1, len(data)) :]
        for _ in range(chance.randrange(3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            loaded = nvidia.import_generator(nvidia.read(path))
            good += loaded.synthesis(torch.zeros(1, 6, 8)).shape == (1, 3, 16, 16)
        except WeightsError as error:
            assert "To fix" in str(error) or "expected" in str(error)
    assert 0 < good < 150
