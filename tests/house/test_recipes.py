"""The experiments that carry a paper's name compose to the numbers of its released command.

Sources: README.md, options/train_options.py and training/ of eladrich/pixel2style2pixel (P),
omertov/encoder4editing (E) and yuval-alaluf/restyle-encoder (R), issues where named; of
kkang831/BDInvert_Release, BDInvert/train_basecode_encoder.py (B). Steps there are of 8 images (B:
16), so kimg = steps * 8 / 1000.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.runs import composed

RANGER = {  # P, E, R: training/ranger.py, called with lr alone
    "optimizer._target_": "ganinv.optimizer.ranger.Ranger",
    "optimizer.lr": 1e-4,
    "optimizer.betas": [0.95, 0.999],
    "optimizer.eps": 1e-5,
    "optimizer.alpha": 0.5,
    "optimizer.k": 6,
    "optimizer.n_sma_threshold": 5,
    "optimizer.weight_decay": 0.0,
    "method.clip_norm": None,
    "dataset.batch_size": 8,
}
LOSSES = {"loss.l2.weight": 1.0, "loss.lpips.weight": 0.8, "loss.lpips.net": "alex"}
FACES = {**LOSSES, "loss.identity.weight": 0.1}  # id_lambda
OTHERS = {**LOSSES, "loss.identity": None, "loss.similarity.weight": 0.5}  # moco_lambda, id_lambda
PSP = {**RANGER, "method._target_": "ganinv.method.psp.PSp", "method.start_from_w_avg": True,
       "encoder._target_": "ganinv.encoder.psp.GradualStyleEncoder"}  # fmt: skip
TASK = {"loss.l2.weight": 1.0, "loss.lpips.weight": 0.8, "loss.latent_norm.weight": 0.005}
LATENT_D = {  # E, R: w_discriminator_lambda, w_discriminator_lr, r1, d_reg_every, w_pool_size, ...
    "loss.adversarial.weight": 0.1,
    "loss.delta.weight": 2e-4,
    "loss.delta.p": 2,
    "method.optimizer_D._target_": "torch.optim.Adam",
    "method.optimizer_D.lr": 2e-5,
    "method.r1_gamma": 10.0,
    "method.r1_every": 16,
    "method.pool_size": 50,
    "method.progressive_start": 20_000 * 8,
    "method.progressive_every": 2000 * 8,
}
E4E = {**RANGER, **LATENT_D, "method._target_": "ganinv.method.e4e.E4E",
       "encoder._target_": "ganinv.encoder.e4e.Encoder4Editing",
       "method.start_from_w_avg": True, "trainer.val_every_kimg": 80}  # fmt: skip
RESTYLE = {**RANGER, "method.refinements": 5, "trainer.val_every_kimg": 40,
           "trainer.save_every_kimg": 80}  # fmt: skip
R_PSP = {**RESTYLE, "method._target_": "ganinv.method.restyle.ReStylePSp",
         "loss.latent_norm.weight": 0.0}  # fmt: skip
R_E4E = {**RESTYLE, **LATENT_D, "method._target_": "ganinv.method.restyle.ReStyleE4E"}
BDINVERT = {  # B: lines 61-64, 133, 167-168, 183, 197-206, 212
    "optimizer._target_": "torch.optim.Adam",
    "optimizer.lr": 1e-3,
    "optimizer.betas": [0.9, 0.999],
    "dataset.batch_size": 16,
    "dataset.psi": 0.7,
    "dataset.cutoff": 8,
    "method.noise": "const",
    "method.mse_weight": 1.0,
    "loss.lpips.weight": 10.0,
    "loss.lpips.net": "vgg",
    "method.perceptual_side": 256,
    "method.decay_every": 2000 * 16,
    "trainer.max_kimg": 160,
    "trainer.val_every_kimg": 16,
}
FACE_TRUNK, OTHER_TRUNK = "ganinv.encoder.restyle.ReStyle", "ganinv.encoder.restyle.ReStyleResNet"

RECIPES: dict[str, dict[str, Any]] = {
    # P README "Training": val_interval 2500, save_interval 5000; 300,000 steps: P issue 5
    "psp_ffhq1024": {**PSP, **FACES, "loss.latent_norm.weight": 0.0, "trainer.max_kimg": 2400,
                     "trainer.val_every_kimg": 20, "trainer.save_every_kimg": 40},
    "psp_sketch_celebahq1024": {**PSP, **TASK, "encoder.input_nc": 1},
    "psp_segmentation_celebahq1024": {**PSP, **TASK, "encoder.input_nc": 19, "task.classes": 19},
    "psp_super_resolution_celebahq1024": {**PSP, **TASK, "loss.identity.weight": 0.1,
                                          "task.factors": [1, 2, 4, 8, 16, 32]},
    "psp_toonify_ffhq1024": {**PSP, **LOSSES, "loss.identity.weight": 1.0,
                             "loss.latent_norm.weight": 0.025},
    # E README "Training", issues 43 and 39
    "e4e_ffhq1024": {**E4E, **FACES, "trainer.max_kimg": 2400},
    "e4e_cars512": {**E4E, **OTHERS, "trainer.max_kimg": 1600},
    "e4e_horse256": {**E4E, **OTHERS}, "e4e_church256": {**E4E, **OTHERS},
    "e4e_cat256": {**E4E, **OTHERS},
    # R README "Training"; best steps: R issue 20
    "restyle_psp_ffhq1024": {**R_PSP, **FACES, "trainer.max_kimg": 880,
                             "encoder._target_": f"{FACE_TRUNK}Encoder"},
    "restyle_psp_cars512": {**R_PSP, **OTHERS, "trainer.max_kimg": 600,
                            "encoder._target_": f"{OTHER_TRUNK}Encoder"},
    "restyle_psp_church256": {**R_PSP, **OTHERS, "trainer.max_kimg": 1200,
                              "encoder._target_": f"{OTHER_TRUNK}Encoder"},
    "restyle_psp_afhq_wild512": {**R_PSP, **OTHERS, "trainer.max_kimg": 320,
                                 "encoder._target_": f"{OTHER_TRUNK}Encoder"},
    "restyle_e4e_ffhq1024": {**R_E4E, **FACES, "encoder._target_": f"{FACE_TRUNK}Encoder4Editing"},
    "restyle_e4e_cars512": {**R_E4E, **OTHERS,
                            "encoder._target_": f"{OTHER_TRUNK}Encoder4Editing"},
    "restyle_e4e_horse256": {**R_E4E, **OTHERS,
                             "encoder._target_": f"{OTHER_TRUNK}Encoder4Editing"},
    "bdinvert_ffhq1024_16": {**BDINVERT, "encoder.side": 16},
    "bdinvert_ffhq1024_8": {**BDINVERT, "encoder.side": 8},
}  # fmt: skip
FRONTAL = {"l2": 0.001, "lpips": 0.08, "identity": 1.0, "latent_norm": 0.005}  # P README


def value_of(config: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        config = config[key]
    return list(config) if type(config).__name__ == "ListConfig" else config


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_experiment_composes_to_the_released_numbers(name: str) -> None:
    config = composed([f"experiment={name}"])
    wrong = {key: (value_of(config, key), value) for key, value in RECIPES[name].items()
             if value_of(config, key) != value}  # fmt: skip
    assert not wrong, wrong


def test_frontalisation_has_two_weights_for_two_regions() -> None:
    """The whole image, and the crop of the face: lpips_lambda_crop 0.8, l2_lambda_crop 0.01."""
    loss = composed(["experiment=psp_frontalisation_ffhq1024"]).loss
    for name, weight in FRONTAL.items():
        assert loss[name].weight == weight, name
    crops = {name: term.weight for name, term in loss.items() if name not in FRONTAL and term}
    assert sorted(crops.values()) == [0.01, 0.8], crops
