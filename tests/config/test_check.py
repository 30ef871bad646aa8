"""Every value is looked at before anything is loaded: one sentence with key, value, expected."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from evaluate import evaluate
from ganinv.config.build import build_optimizer, plain
from ganinv.config.check import check, check_config, check_optimizers
from ganinv.config.stored import StoredConfig
from ganinv.core.errors import ConfigError, WeightsError
from ganinv.generator.stylegan2 import StyleGAN2Generator
from ganinv.optimizer.ranger import Ranger
from tests.house.tree import names
from tests.runs import SHAPE, composed, composed_evaluate

WHOLE = "expected a whole number of at least"
TRAIN = {
    "trainer.devices=0": f"{WHOLE} 1, or -1",
    "trainer.devices=-2": f"{WHOLE} 1, or -1",
    "trainer.devices=abc": f"{WHOLE} 1, or -1",
    "trainer.num_nodes=0": f"{WHOLE} 1",
    "trainer.micro_batches=0": f"{WHOLE} 1",
    "trainer.micro_batches=-1": f"{WHOLE} 1",
    "optimizer.lr=abc": "expected a number above 0",
    "optimizer.lr=-1": "expected a number above 0",
    "optimizer.lr=nan": "expected a number above 0",
    "optimizer.lr=0": "expected a number above 0",
    "optimizer.betas=[0.9]": "expected a list of 2",
    "optimizer.betas=[0.9,1.5]": "each of it a number of at most 0.9",
    "optimizer.betas=[0.9,1]": "each of it a number of at most 0.9",
    "optimizer.betas=[-1,0.9]": "each of it a number of at least 0",
    "optimizer.alpha=0": "expected a number above 0",
    "trainer.max_kimg=-1": "expected a number above 0",
    "trainer.max_kimg=nan": "expected a number above 0",
    "trainer.max_kimg=inf": "expected a number above 0",
    "trainer.max_kimg=abc": "expected a number above 0",
    "trainer.keep_best=-1": f"{WHOLE} 0",
    "trainer.threads=0": f"{WHOLE} 1",
    "trainer.compile=maybe": "expected true or false or one of auto. To",
    "trainer.precision=fp99": "expected one of 32-true, bf16-mixed. To",
    "trainer.accelerator=tpu": "expected one of cpu, gpu, cuda, auto",
    "trainer.bucket_mb=0": "expected a number above 0",
    "trainer.bucket_mb=null": "expected a number above 0",
    "trainer.gradient_compression=fp16": "expected one of bf16 or null. To",
    "trainer.gradient_compression=true": "expected one of bf16 or null. To",
    "trainer.deterministic=1": "expected true or false",
    "seed=-1": f"{WHOLE} 0",
    "seed=abc": f"{WHOLE} 0",
    "seed=5000000000": "expected a whole number of at most 4,294,967,295",
    "name=../../up": "expected a plain name of letters",
    "name=.hidden": "expected a plain name of letters",
    "dataset.num_train=1e3": f"{WHOLE} 1",
    "dataset.image_size=[64]": "expected a list of 2",
    "dataset.image_size=[0,64]": "each of it a whole number of at least 4",
    "dataset.max_bad_fraction=2": "expected a number of at most 1",
    "method.noise=loud": "expected one of const, none, random",
    "loss.l2.weight=-1": "expected a number of at least 0",
    "loss.l2.weight=nan": "expected a number of at least 0",
    "loss.perceptual.backbone.weights=3": "expected text or null",
    "~encoder": "with the method PSp; expected its encoder",
    "~loss": "with the method PSp; expected its loss",
    "~dataset": "expected a choice of conf/dataset",
    "run_dir=/x/${y}": "Interpolation key 'y' not found",
    r"run_dir=/x/\${y}": 'expected text without "\\$\\{"',
    "run_dir=3": "expected text or null",
    "encoder._target_=ganinv.encoder.psp.Gone": "expected a class or function of Python",
}  # fmt: skip
EVALUATE = {
    "limit=abc": f"{WHOLE} 1",
    "limit=0": f"{WHOLE} 1",
    "trainer.accelerator=tpu": "expected one of auto, gpu, cpu",
    "seed=-1": f"{WHOLE} 0",
    "batch_size=0": f"{WHOLE} 1",
    "pictures=x": f"{WHOLE} 1",
    "trainer.precision=16-mixed": "expected one of 32-true, bf16-mixed. To",
    "split=tset": "expected one of train, val, test",
    "metric.lite0.column=3": "expected text",
}


@pytest.mark.parametrize("argument", TRAIN)
def test_a_wrong_value_of_a_training(argument):
    key = argument.split("=")[0].lstrip("~")
    with pytest.raises(ConfigError, match=TRAIN[argument]) as caught:
        check_config(composed([argument]))
    assert str(caught.value).startswith(key) and "To fix: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", EVALUATE)
def test_a_wrong_value_of_an_evaluation(argument):
    with pytest.raises(ConfigError, match=EVALUATE[argument]) as caught:
        evaluate(composed_evaluate("checkpoint=/nowhere.ckpt", argument))
    assert str(caught.value).startswith(argument.split("=")[0])


@pytest.mark.parametrize("name", ["adam", "adam_gan", "adam_idinvert", "ranger"])
def test_a_whole_number_is_taken_where_torch_wants_a_float(name):
    """torch's Adam refuses betas of which one is 0 and not 0.0."""
    weight = torch.nn.Parameter(torch.zeros(2))
    cfg = composed([f"optimizer={name}", "optimizer.betas=[0,0.99]", "optimizer.lr=1"])
    check_config(cfg)
    stored = StoredConfig(plain(cfg), "a file")
    for config in (cfg, stored):
        (group,) = build_optimizer(config)([weight]).param_groups
        assert group["betas"] == (0, 0.99) and group["lr"] == 1
        assert all(type(value) is float for value in (*group["betas"], group["lr"]))


def test_parts_that_a_method_does_not_have():
    with pytest.raises(ConfigError, match=r"encoder=\.\.\. with the method GAN, which has none"):
        check_config(composed(["method=gan", "encoder=psp"]))


@pytest.mark.parametrize("group", ["method", "experiment", "trainer", "dataset", "generator"])
def test_every_choice_passes(group):
    for name in names(group):
        check_config(composed([f"{group}={name}"]))
    check_config(composed_evaluate("checkpoint=a.ckpt", "metric=[lpips,identity,fid_lite0]"))


def test_what_is_known_once_the_generator_is():
    data = SimpleNamespace(generator_resolutions=[64], image_size=(64, 64), check=lambda s: None)
    shape = SHAPE | {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "conv_clamp": None}
    check(StyleGAN2Generator(**shape), data)
    with pytest.raises(ConfigError, match=r"a conditional generator \(c_dim=3\); expected an unc"):
        check(StyleGAN2Generator(**shape | {"c_dim": 3}), data)
    with pytest.raises(ConfigError, match="a generator of images with 1 channels; expected RGB"):
        check(StyleGAN2Generator(**shape | {"img_channels": 1}), data)


def test_the_state_of_another_optimizer_is_refused():
    weight = torch.nn.Parameter(torch.zeros(2))

    def method(optimizer):
        return SimpleNamespace(player_names=["E"], configure_optimizers=lambda: [optimizer])

    def state(optimizer):
        weight.grad = torch.ones(2)
        optimizer.step()
        return {"optimizer_states": [optimizer.state_dict()]}

    adam, ranger = torch.optim.Adam([weight], lr=0.1), Ranger(
        [weight], lr=0.1, alpha=0.5, k=6, betas=(0.95, 0.999), n_sma_threshold=5, eps=1e-5,
        weight_decay=0.0,
    )  # fmt: skip
    check_optimizers(method(adam), state(torch.optim.Adam([weight], lr=0.3, betas=(0.5, 0.9))))
    check_optimizers(method(ranger), state(ranger))
    with pytest.raises(WeightsError, match="optimizer of E is no Adam .*alpha"):
        check_optimizers(method(adam), state(ranger))
    with pytest.raises(WeightsError, match="optimizer of E is no Ranger"):
        check_optimizers(method(ranger), state(adam))
    with pytest.raises(WeightsError, match="decoupled_weight_decay"):
        check_optimizers(method(adam), state(torch.optim.AdamW([weight], lr=0.1)))
