"""`--to nvidia-pkl`: opened without ganinv, by what NVIDIA's loader is documented to do, written
here anew: it runs the source inside the file, builds the classes, and pickles them again."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ganinv.interop.nvidia
from ganinv.cli.main import main
from ganinv.core.errors import ConfigError, WeightsError
from ganinv.core.latent import repeat_w
from ganinv.generator.importer.bundle import save_bundle
from ganinv.generator.importer.load import load_discriminator, load_generator
from ganinv.generator.stylegan import StyleGANGenerator
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.generator.stylegan3 import StyleGAN3Generator
from ganinv.interop import nvidia_pickle
from tests.generator.test_stylegan3 import TINY as STYLEGAN3
from tests.interop.test_plain import FIRST
from tests.runs import SHAPE

PERSISTENCE = """
import copy, sys, types, uuid

modules, sources = {}, {}


def persistent_class(cls):
    source = sources[cls.__module__]

    class Decorated(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._init_args, self._init_kwargs = copy.deepcopy(args), copy.deepcopy(kwargs)

        init_args = property(lambda self: copy.deepcopy(self._init_args))
        init_kwargs = property(lambda self: copy.deepcopy(self._init_kwargs))

        def __reduce__(self):
            state = super().__reduce__()[2]
            meta = dict(type="class", version=6, module_src=source, state=state)
            return _reconstruct_persistent_obj, (dict(meta, class_name=cls.__name__),)

    Decorated.__name__ = cls.__name__
    return Decorated


def _reconstruct_persistent_obj(meta):
    assert meta["version"] == 6 and meta["type"] == "class"
    source = meta["module_src"]
    if source not in modules:
        name = "_imported_module_" + uuid.uuid4().hex
        module = types.ModuleType(name)
        sys.modules[name], modules[source], sources[name] = module, module, source
        exec(source, module.__dict__)
    cls = getattr(modules[source], meta["class_name"])
    found = cls.__new__(cls)
    found.__setstate__(meta["state"])
    return found
"""
PROGRAM = """
import copy, pickle, sys

sys.path.insert(0, sys.argv[1])
import torch

assert "ganinv" not in sys.modules
with open(sys.argv[2], "rb") as file:
    data = pickle.load(file)
G, D = data["G_ema"], data["D"]
for name in ("G", "D", "G_ema"):
    assert isinstance(data[name], torch.nn.Module) and not data[name].training
assert data["G"] is G and data["training_set_kwargs"] is None and data["augment_pipe"] is None
z = torch.load(sys.argv[3])
label = torch.eye(G.c_dim)[:1].repeat(len(z), 1) if G.c_dim else None
ws = G.mapping(z, label)
assert ws.shape == (len(z), G.num_ws, G.w_dim) and G.mapping.num_ws == G.num_ws
images = {
    "const": G.synthesis(ws, noise_mode="const", force_fp32=True),
    "whole": G(z, label, noise_mode="const", truncation_psi=0.5),
}
torch.manual_seed(0)
images["random"] = G.synthesis(ws, noise_mode="random")
torch.manual_seed(1)
images["again"] = G.synthesis(ws)
noise = {k: v for k, v in G.synthesis.named_buffers() if "noise_const" in k}  # as PTI asks

again = pickle.loads(pickle.dumps(G))  # as torch.save(G) of PTI
assert torch.equal(again.synthesis(ws, noise_mode="const"), images["const"])
assert torch.equal(copy.deepcopy(G).synthesis(ws, noise_mode="const"), images["const"])
assert G.init_args == ()
for kwargs in (G.init_kwargs, dict(G.init_kwargs, synthesis_kwargs={"num_fp16_res": 4})):
    if "synthesis_kwargs" in kwargs:  # legacy.py's force_fp16
        kwargs.pop("num_fp16_res", None)
    new = type(G)(**kwargs).eval()
    new.load_state_dict(G.state_dict())
    assert torch.equal(new.synthesis(ws, noise_mode="const"), images["const"])
type(D)(**dict(D.init_kwargs, num_fp16_res=4, conv_clamp=256))
tuned = copy.deepcopy(G).train().requires_grad_(True)
tuned.synthesis(ws).sum().backward()
assert tuned.synthesis.requires_grad_ and all(
    p.grad is not None for n, p in tuned.synthesis.named_parameters() if not n.endswith("strength")
)
words = ""
try:
    D(images["const"], None)
except RuntimeError as error:
    words = str(error)
torch.save({"ws": ws, "images": images, "noise": sorted(noise), "words": words,
            "kwargs": G.init_kwargs}, sys.argv[4])
"""


def opened(folder: Path, file: Path, z: torch.Tensor) -> dict:
    """What a program without ganinv finds in the file."""
    code = folder / "code" / "torch_utils"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("")
    (code / "persistence.py").write_text(PERSISTENCE)
    torch.save(z, folder / "z.pt")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(code.parent), str(file), "z.pt", "found.pt"],
        cwd=folder, env={"PATH": "", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return torch.load(folder / "found.pt", weights_only=True)


def generator_of(kind: str) -> StyleGAN2Generator | StyleGAN3Generator:
    """A small one with something in every parameter."""
    torch.manual_seed(3)
    if kind.startswith("stylegan3"):
        more = {"conv_kernel": 1, "use_radial_filters": True} if kind.endswith("r") else {}
        generator = StyleGAN3Generator(**(STYLEGAN3 | more))
    else:
        classes, clamp = (5, 2.0) if kind.endswith("conditional") else (0, None)
        shape = SHAPE | {"c_dim": classes}
        generator = StyleGAN2Generator(
            z_dim=16, w_dim=16, mapping_layers=3, mapping_width=None if classes else 24,
            conv_clamp=clamp, **shape,
        )  # fmt: skip
    for name, value in generator.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            value.data.add_(torch.randn(value.shape) * 0.1)
    for name, value in generator.named_buffers():
        if name.endswith(("w_avg", "transform")):
            value.add_(torch.randn(value.shape) * 0.1)
        if name.endswith("magnitude_ema"):
            value.mul_(1.5)
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "kind",
    [
        "stylegan2",
        pytest.param("stylegan2-conditional", marks=pytest.mark.nightly),
        "stylegan3-t",
        pytest.param("stylegan3-r", marks=pytest.mark.nightly),
    ],
)
def test_a_program_without_ganinv_sees_the_same_images(kind, tmp_path, capsys):
    generator = generator_of(kind)
    z = torch.randn(2, generator.z_dim)
    bundle, file = tmp_path / "own.safetensors", tmp_path / f"{kind}.pkl"
    save_bundle(bundle, generator, {}, half=False)
    assert main(["export", str(bundle), "--to", "nvidia-pkl", "--out", str(file)]) == 0
    assert "torch_utils" not in sys.modules
    found = opened(tmp_path, file, z)
    label = torch.eye(5)[:1].repeat(2, 1) if generator.c_dim else None
    wp = repeat_w(generator.mapping(z, label), generator.num_ws)
    torch.testing.assert_close(found["ws"], wp)
    images = found["images"]
    torch.testing.assert_close(images["const"], generator.synthesis(wp), rtol=1e-4, atol=1e-5)
    half = generator.w_avg.lerp(wp, 0.5)
    torch.testing.assert_close(images["whole"], generator.synthesis(half), rtol=1e-4, atol=1e-5)
    noisy = kind.startswith("stylegan2")
    assert torch.equal(images["random"], images["again"]) is not noisy
    assert torch.equal(images["random"], images["const"]) is not noisy
    assert len(found["noise"]) == (9 if noisy else 0)
    assert "without a discriminator" in found["words"]
    own = load_generator(weights=str(file), resolution=None, kind=None, origin=None)
    assert own.architecture == generator.architecture
    for key, value in generator.state_dict().items():
        assert torch.equal(own.state_dict()[key], value), key
    with pytest.raises(WeightsError):
        load_discriminator(weights=str(file), origin=None)


@pytest.mark.parametrize("name", ["stylegan2", "stylegan3"])
def test_the_source_inside_is_for_older_pythons_and_imports_nothing_else(name):
    path = Path(ganinv.interop.nvidia.__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    assert found <= {"__future__", "math", "numpy", "torch", "torch_utils"}


def test_the_file_names_nothing_but_tensors_and_nvidia_s_record(tmp_path):
    path = tmp_path / "stylegan3.pkl"
    nvidia_pickle.write(path, generator_of("stylegan3-t"))

    class Names(pickle.Unpickler):
        def find_class(self, module, name):
            seen.add(f"{module}.{name}")
            return Anything

    class Anything:
        def __init__(self, *arguments):
            pass

        def __setstate__(self, state):
            pass

    seen: set[str] = set()
    with open(path, "rb") as file:
        Names(file).load()
    assert "torch_utils.persistence._reconstruct_persistent_obj" in seen
    others = {n for n in seen if not n.startswith(("torch.", "numpy.", "collections.", "torch_u"))}
    assert not others, others
    assert path.read_bytes().count(b"class MappingNetwork") == 1


def test_what_no_file_can_hold_is_refused(tmp_path):
    generator = generator_of("stylegan2")
    with pytest.raises(ConfigError, match=r"with stylegan2 in it .* try mine-stylegan2\.pkl"):
        nvidia_pickle.write(tmp_path / "mine.pkl", generator)
    with pytest.raises(ConfigError, match=r"ends in \.pkl"):
        nvidia_pickle.write(tmp_path / "stylegan2.pt", generator)
    with pytest.raises(ConfigError, match=r"a StyleGAN \(v1\); expected a StyleGAN2 or StyleGAN3"):
        nvidia_pickle.write(tmp_path / "stylegan2.pkl", StyleGANGenerator(**FIRST))
    assert not list(tmp_path.iterdir())
