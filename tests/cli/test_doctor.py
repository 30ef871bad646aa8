"""`ganinv doctor` finds what is there and says where the rest comes from."""

import hashlib
import re

from ganinv.cli.main import main


def metadata(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["doctor"]) == 0
    return capsys.readouterr().out


def test_what_ships_is_found_and_what_is_missing_has_its_source(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("GANINV_WEIGHTS", raising=False)
    out = metadata(capsys, monkeypatch)
    assert re.search(r"stylegan2_avatars64 .*found: ", out)
    assert re.search(r"efficientnet_lite0 .*found: .*sha256 579344248a93e230", out)
    assert re.search(r"arcface_ir_se50 .*missing; from TreB1eN.*loss.identity=null", out)
    assert re.search(r"stylegan2_ffhq1024 .*missing; from the README of eladrich", out)
    assert "GANINV_WEIGHTS (not set)" in out and re.search(r"torch +│ +\d", out)


def test_a_file_that_was_put_there_is_found_with_its_hash(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GANINV_WEIGHTS", str(tmp_path))
    (tmp_path / "model_ir_se50.pth").write_bytes(b"weights")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"cut short")
    out = metadata(capsys, monkeypatch)
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    assert re.search(rf"arcface_ir_se50 .*found: .*sha256 {digest}", out)
    assert re.search(r"vgg16 .*damaged: .*begins with 397923af", out)
