"""What the page does without a browser: messages, loading, and the files of sessions."""

import os
from pathlib import Path

import pytest
import torch

from ddcm.app.server_options import Limits
from ddcm.app.service import Service
from ddcm.app.sessions import Sessions
from ddcm.backbone.tiny import tiny_backbone
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline


@pytest.mark.parametrize(
    "error, line",
    [
        (UserError("/tmp/x/a.ddcm: made with backbone b; this is c (1f): give --backbone"),
         "a.ddcm: made with backbone b; this is c (1f)"),
        (UserError("made with --dtype float16; in float32 it is another sound: give the same"),
         "made with dtype float16; in float32 it is another sound: give the same"),
        (UserError("recipe 'a' is not known; the nearest is 'b' (all: ddcm recipes)"),
         "recipe 'a' is not known; the nearest is 'b'"),
        (torch.OutOfMemoryError(), "out of memory; give a shorter recording"),
        (OSError(28, "No space left on device"), "the server cannot write its files (no space left on device)"),
    ],
)  # fmt: skip
def test_visitors_are_shown_no_flags(error, line):
    describe_to_visitor = pytest.importorskip("ddcm.app.jobs").describe_to_visitor
    assert describe_to_visitor(error, [Path("/tmp/x/a.ddcm")]) == line


def test_the_model_is_loaded_before_the_first_visitor():
    backbone = tiny_backbone(seed=5)
    parts = {"vae", "unet", "vocoder"}
    assert not parts & vars(backbone).keys()
    service = Service(DDCMPipeline(backbone), Limits())
    service.warm_up()
    assert parts <= vars(backbone).keys() and service.describe_model() == ["tiny-5", "no codebook", "cpu, float32"]


def test_a_shared_upload_goes_with_the_last_visitor(tmp_path):
    sessions, upload, example = Sessions(tmp_path), tmp_path / "both.wav", tmp_path / "example.wav"
    example.write_bytes(b"1")
    sessions.protect_existing()
    upload.write_bytes(b"1")
    for session in ("a", "b"):
        sessions.add_upload(session, upload)
        sessions.add_upload(session, example)
    sessions.end("a")
    assert upload.exists()
    sessions.end("b")
    assert not upload.exists() and example.exists()
    upload.write_bytes(b"1")
    sessions.delete_older(60)
    assert upload.exists()
    os.utime(upload, (1, 1))
    sessions.delete_older(60)
    assert not upload.exists() and example.exists()
