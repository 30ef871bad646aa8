"""Real processes: N of batch b equal one of batch N b, and any number goes on where another was.

Batch normalisation is
synchronised; the GAN's minibatch deviation, which no number of ranks could reproduce, is over
groups of one. The twenty faces lie in shards of seven, seven and six.
"""

import json
from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from ganinv.config.build import build_method
from ganinv.dataset.index import read_index
from ganinv.dataset.module import AvatarData
from ganinv.run.checkpoint import read_checkpoint
from tests import runs
from tests.dataset.sets import spoil
from tests.processes import launch_ready
from tests.runs import METHODS, composed, methods, plain_overrides

SHARE = 0.01  # of what training moved; Adam and Ranger make much of rounding in small gradients
SEEDS = (2, 1)  # one may meet a kink of leaky ReLU, where rounding decides; a defect meets both
ON_FOUR = ("gan",)  # two players. Two ranks for the others, unless at night
CASES = [
    pytest.param(method, ranks, 1, marks=[pytest.mark.nightly] * seldom)
    for method in METHODS
    for ranks, seldom in ((2, method in ON_FOUR), (4, method not in ON_FOUR))
]
CASES += [("e4e", 2, 2)]


@pytest.fixture(scope="module")
def uneven(assets, tmp_path_factory):
    """The generator's file and a folder with faces in uneven shards."""
    cache = tmp_path_factory.mktemp("uneven")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AvatarData, "PER_SHARD", 7)
        data = instantiate(composed(plain_overrides("psp", assets[0], cache)).dataset)
        data.prepare_data()
    assert len(list(data.root.glob("train/*.tar"))) == 3
    return assets[0], cache


def launch(arguments, folder, **more):
    """python train.py ... in processes of their own; returns its last checkpoint and its output."""
    out = launch_ready(arguments, folder, **more)
    return read_checkpoint(folder / "checkpoints" / "last.ckpt"), out


def arguments(method, assets, batch_size, *extra):
    common = [
        *plain_overrides(method, *assets),
        "trainer.sync_batchnorm=true",
        f"dataset.batch_size={batch_size}",
        "trainer.max_kimg=0.02",
        *([] if method == "bdinvert" else ["dataset.window=1"]),
        *extra,
    ]
    return common + (["discriminator.mbstd_group_size=1"] if method == "gan" else [])


@pytest.fixture(scope="module")
def alone(uneven, tmp_path_factory):
    """One process over the whole batch: method, batch, chunks -> checkpoint; run once each."""
    found = {}

    def run(method, batch, *extra):
        if (method, batch, extra) not in found:
            folder = tmp_path_factory.mktemp("alone") / "run"
            runs.run([*arguments(method, uneven, batch, *extra), f"run_dir={folder}"])
            found[method, batch, extra] = read_checkpoint(folder / "checkpoints" / "last.ckpt")
        return found[method, batch, extra]

    return run


@pytest.mark.ddp
@pytest.mark.parametrize(("method", "ranks", "chunks"), CASES)
def test_several_processes_equal_one_with_the_whole_batch(
    method, ranks, chunks, uneven, alone, tmp_path
):
    """After five steps, with gradient penalties, pools and opening stages on the way; with two
    chunks a batch, chunk i of all ranks together is chunk i of the one process."""
    total, apart = 4 * chunks, {}
    for seed in SEEDS:
        extra = [f"trainer.micro_batches={chunks}", f"trainer.max_kimg={5 * total / 1000}"]
        extra += [f"seed={seed}", "trainer.bucket_mb=0.1"]  # several buckets for each player
        one = alone(method, total, *extra)
        words = arguments(method, uneven, total // ranks, *extra)
        many, out = launch(words, tmp_path / f"many{seed}", ranks=ranks)
        assert one["images_seen"] == many["images_seen"] == 5 * total
        assert out.count("Done: ") == 1  # rank 0 alone speaks
        apart[seed] = shares(arguments(method, uneven, 4, *extra), one, many)
        if max(apart[seed].values()) < SHARE:
            return
    raise AssertionError(apart)


def shares(words, one, many):
    """player -> how far apart the two runs put it, as a share of what training moved."""
    cfg = composed(words)
    pl.seed_everything(cfg.seed, verbose=False)
    start = build_method(cfg, instantiate(cfg.generator)).state_dict()
    assert set(one["state_dict"]) == set(many["state_dict"])
    found = {}
    for player in {key.split(".", 1)[0] for key in one["state_dict"]}:
        moved, apart = norms(player, start, one["state_dict"], many["state_dict"])
        assert moved > 0, player
        found[player] = float(apart / moved)
    return found


def norms(player, start, one, two):
    """How far training moved a player, and how far apart the two runs put it."""
    keys = [k for k, v in one.items() if k.startswith(player + ".") and torch.is_tensor(v)]
    keys = [k for k in keys if one[k].is_floating_point()]
    moved = torch.stack([(one[k] - start[k]).norm() for k in keys]).norm()
    return moved, torch.stack([(one[k] - two[k]).norm() for k in keys]).norm()


@pytest.mark.ddp
def test_on_another_number_of_ranks_no_image_comes_twice_before_all_came(uneven, tmp_path):
    """Two ranks to 8 of 20 images, one rank to 14, two again to 18: each image at most once.

    The window of images that are drawn again is what a killed run did since its last checkpoint:
    at most `trainer.save_every_kimg`. Here every part ended in order, so it is nothing.
    """
    record = tmp_path / "keys.jsonl"
    folder = tmp_path / "run"
    for ranks, kimg in ((2, 0.008), (1, 0.014), (2, 0.018)):
        extra = [f"trainer.max_kimg={kimg}", "trainer.sync_batchnorm=false", "resume=auto"]
        words = arguments("psp", uneven, 2, *extra)
        launch(words, folder, ranks=ranks, fault=f"record {record}:-1:0")
    seen = [key for line in record.read_text().splitlines() for key in json.loads(line)]
    assert len(seen) == 18 and max(Counter(seen).values()) == 1


@pytest.mark.ddp
@pytest.mark.parametrize("method", methods("gan"))
def test_a_rank_without_an_image_to_validate_on_ends_all_of_them(method, assets, tmp_path):
    """Else the others would wait for its rows: too few images are refused at the start, a rank that
    can read none of its own ends the run."""
    words = [*plain_overrides(method, assets[0], tmp_path), "dataset.batch_size=2"]
    words += ["method.fid.backbone.weights=null"] * (method == "gan")
    words = [word for word in words if word not in ("method.fid=null", "dataset.num_val=6")]
    said = launch_ready([*words, "dataset.num_val=1"], tmp_path / "few", ranks=2, code=None)
    assert "1 images to validate on for 2 processes; expected at least one image for each" in said
    words += ["dataset.num_val=2", "dataset.max_bad_fraction=0.99", "trainer.val_every_kimg=0.004"]
    data = instantiate(composed(words).dataset)
    data.prepare_data()
    spoil(read_index(data.root / "val"), 1)
    said = launch_ready(words, tmp_path / "unreadable", ranks=2, code=None)
    assert "1 unreadable images among 1 of" in said and "Traceback" not in said
