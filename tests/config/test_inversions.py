"""inversion=[a,b]: which method starts from which, as the command line says it."""

import pytest
from hydra import compose, initialize_config_dir

from ganinv.config.inversions import build_inversions
from ganinv.core.errors import ConfigError
from ganinv.inversion.pti import threshold_of
from tests.inversion import tiny
from tests.runs import ROOT

SHORT = ("inversion.projector.samples=50",)


def built(*overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", overrides=list(overrides))
    return build_inversions(cfg.inversion, tiny.model())


def test_a_method_starts_from_the_one_it_names():
    made = built(
        "inversion=[encode,projector,pti,domain_regularised,noise_maps]", *SHORT,
        "inversion.pti.pivot=projector", "inversion.noise_maps.start=pti",
    )  # fmt: skip
    assert list(made) == ["encode", "projector", "pti", "domain_regularised", "noise_maps"]
    assert made["pti"].pivot is made["projector"] and made["noise_maps"].begin is made["pti"]
    assert made["domain_regularised"].begin is made["encode"]
    assert type(built("inversion=[pti]")["pti"].pivot).__name__ == "Encode"
    assert built("inversion=[image2stylegan]")["image2stylegan"].begin == "w_avg"
    assert made["projector"].begin == "w_avg"
    from_e = built("inversion=[projector]", "inversion.projector.start=encode", *SHORT)
    assert type(from_e["projector"].begin).__name__ == "Encode"
    assert made["pti"].steps == 350 and made["projector"].noise_reg == 1e5


def test_pti_stops_at_the_scale_of_its_distance():
    """0.06 is LPIPS's over AlexNet; the distance that comes with the installation has its own."""
    assert built("inversion=[pti]")["pti"].threshold == 0.2
    assert built("inversion=[pti]", "inversion.pti.threshold=0.05")["pti"].threshold == 0.05
    assert built("inversion=[pti]", "inversion.pti.threshold=null")["pti"].threshold is None
    l2 = "inversion.pti.perceptual={_target_: ganinv.loss.pixel.L2, weight: 1}"
    with pytest.raises(ConfigError, match="no threshold for the perceptual term L2; expected one"):
        built("inversion=[pti]", l2)
    given = {"LPIPS": 0.06, "Perceptual": 0.2}
    term = type("LPIPS", (), {})()
    assert threshold_of(given, term) == 0.06


def test_a_method_of_its_own_node():
    node = "{_target_: ganinv.inversion.encode.Encode}"
    made = built("inversion=[pti]", f"inversion.pti.pivot={node}")
    assert made["pti"].pivot.model is made["pti"].model


def test_refusals():
    with pytest.raises(ConfigError, match="pivot=projector; expected w_avg, random, encode or the"):
        built("inversion=[pti]", "inversion.pti.pivot=projector")
    with pytest.raises(ConfigError, match="start pti from noise_maps from pti; expected one that"):
        built("inversion=[pti,noise_maps]", "inversion.pti.pivot=noise_maps",
              "inversion.noise_maps.start=pti")  # fmt: skip
    with pytest.raises(ConfigError, match="a pivot that changes weights of its own; expected a me"):
        built("inversion=[pti,clone]", "inversion.clone.pivot=pti")
    with pytest.raises(ConfigError, match="start=encodr; expected w_avg, random, encode or the na"):
        built("inversion=[projector]", "inversion.projector.start=encodr", *SHORT)
    with pytest.raises(ConfigError, match="steps=0 for PTI; expected a whole number of at least 1"):
        built("inversion=[pti]", "inversion.pti.steps=0")
    with pytest.raises(ConfigError, match="bdinvert without base_code; expected the checkpoint"):
        built("inversion=[bdinvert]")
