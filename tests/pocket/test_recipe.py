"""The training recipe of the pocket backbone, on a corpus of six clips and with untrained weights."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

lightning = pytest.importorskip("lightning")
pytest.importorskip("pytorch_optimizer")

from diffusers import AudioLDM2Pipeline  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from ddcm.errors import UserError  # noqa: E402
from pocket import assemble, clap, text, unet, vocoder  # noqa: E402
from pocket.batches import Windows, validation  # noqa: E402
from pocket.budget import TimeBudget  # noqa: E402
from pocket.corpus import Corpus  # noqa: E402
from pocket.optimizer import muon  # noqa: E402
from pocket.vae import VAEStage  # noqa: E402
from tests.helpers.pocket_corpus import examples_as_corpus  # noqa: E402

ROOT = Path(__file__).parents[2]
EXAMPLES, POCKET = ROOT / "examples", ROOT / "checkpoints" / "pocket"
CAPTIONS = ["a voice says the Greek word for star", "horse", "", "a rock drum kit, snare rimshot softest"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return examples_as_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def pieces() -> dict:
    return text.learn_pieces(text.captions())


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pieces) -> Path:
    """A runs folder with the checkpoints of an untrained vae and clap."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for name, state in (
        ("vae", VAEStage().state_dict()),
        ("clap", {f"clap.{key}": x for key, x in text.clap(len(pieces["bpe"])).state_dict().items()}),
    ):
        (folder / name).mkdir()
        torch.save(
            {"state_dict": state, "pieces": pieces, "hyper_parameters": {"width": 32}}, folder / name / "last.ckpt"
        )
    return folder


def test_time_budget_resumes_and_stretches():
    parameter = torch.nn.Parameter(torch.zeros(1))
    trainer = SimpleNamespace(global_step=1000, optimizers=[torch.optim.SGD([parameter], lr=1.0)], should_stop=False)
    module = SimpleNamespace(log_dict=lambda *args, **kwargs: None)
    budget = TimeBudget(minutes=1.0)
    budget.on_train_start(trainer, module)
    budget._tick -= 30.0  # as if a batch had taken this long
    budget.on_train_batch_end(trainer, module, None, None, 0)
    assert budget.progress == pytest.approx(0.5, abs=0.01) and not trainer.should_stop
    longer = TimeBudget(minutes=2.0)
    longer.load_state_dict(budget.state_dict())
    assert longer.progress == pytest.approx(0.25, abs=0.01)
    rates = []
    for one in (budget, longer):
        one.on_train_batch_start(trainer, module, None, 0)
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([0.505, 0.01 + 0.99 * 0.8536], abs=0.01)
    longer.on_train_start(trainer, module)
    for _ in range(2):  # a batch is never counted as more than a minute
        longer._tick -= 500.0
        longer.on_train_batch_end(trainer, module, None, None, 0)
    assert longer.spent_s == pytest.approx(150, abs=1) and trainer.should_stop


def test_captions_alone_in_a_batch_and_in_the_stock_pipeline(pieces):
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = text.tokenizers(pieces)
    reader, parts = text.clap(len(pieces["bpe"])).eval(), text.language(len(pieces["unigram"])).eval()
    absent = dict(vae=None, feature_extractor=None, unet=None, scheduler=None, vocoder=None)
    stock = AudioLDM2Pipeline(
        text_encoder=reader,
        text_encoder_2=parts["t5"],
        projection_model=parts["projection"],
        language_model=parts["gpt2"],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        **absent,
    )
    with torch.no_grad():
        embeds = reader.get_text_features(**text.clap_tokens(tokenizer, CAPTIONS)).pooler_output
        generated, states, mask = text.encode(parts, tokenizer_2, embeds, CAPTIONS)
        assert generated.shape == (len(CAPTIONS), 8, 128) and states.shape[2] == 128
        for i, caption in enumerate(CAPTIONS):
            alone = text.encode(parts, tokenizer_2, embeds[i : i + 1], [caption])
            published = stock.encode_prompt([caption], "cpu", 1, do_classifier_free_guidance=False)
            size = int(mask[i].sum())
            torch.testing.assert_close(generated[i], alone[0][0], atol=3e-5, rtol=0)
            torch.testing.assert_close(generated[i], published[2][0], atol=3e-5, rtol=0)
            torch.testing.assert_close(states[i, :size], published[0][0], atol=3e-5, rtol=0)


@pytest.mark.parametrize("seconds", [2.56, 4.8, 10.0])
def test_clap_features_equal_the_extractor(seconds):
    name = "drumroll" if seconds < 4 else "melodic"
    audio = torch.from_numpy(soundfile.read(EXAMPLES / f"{name}.flac", dtype="float32")[0])
    audio = clap.upsample(audio.repeat(2)[None, : int(16000 * seconds)])
    extractor = text.feature_extractor()
    wanted = extractor(list(audio.numpy()), sampling_rate=48000, return_tensors="pt").input_features
    # In dB; where the upsampled audio has nothing, fp32 and the extractor's fp64 differ by their own noise.
    torch.testing.assert_close(clap.features(audio).double(), wanted.double(), atol=0.05, rtol=0)


def test_equal_captions_are_no_negatives():
    logits = torch.tensor([[2.0, 9.0, 0.0], [9.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    apart = torch.tensor([[2.0, 0.0], [2.0, 0.0]]).log_softmax(1)[:, 0]
    alone = logits[2].log_softmax(0)[2]
    assert clap.contrastive(logits, same) == pytest.approx(float(-(apart.sum() + alone) / 3))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75, 1.0])
def test_cut_repeats_a_share_of_the_short_clips(share):
    torch.manual_seed(0)
    audio = torch.cat([torch.arange(1.0, 11.0), torch.full((20,), 3.0), torch.zeros(30)])[None]
    assert torch.equal(clap.cut(audio, 30, repeated=share), audio[:, :30])  # as long as it takes
    audio = torch.cat([torch.arange(1.0, 11.0), torch.zeros(30)]).repeat(200, 1)
    pieces = clap.cut(audio, 25, repeated=share)
    repeated = (pieces[:, 10:] != 0).any(dim=1)
    assert pieces.shape == (200, 25) and abs(repeated.float().mean() - share) < 0.1
    assert share == 0 or torch.equal(pieces[repeated][0], audio[0, :10].repeat(3)[:25])
    assert torch.equal(pieces[~repeated][:, :10], audio[~repeated][:, :10])
    assert torch.equal(clap.cut(torch.zeros(1, 40), 25), torch.zeros(1, 25))
    assert (clap.cut(audio, 4) != 0).all()


def test_synthesised_notes_are_of_one_pitch_and_not_clipped():
    torch.manual_seed(0)
    notes = vocoder.synthesize_notes(24, 15360)
    assert notes.shape == (24, 15360) and notes.isfinite().all() and notes.abs().max() <= 0.5
    assert (notes.square().mean(1) > 1e-8).all()
    power = torch.fft.rfft(notes[:, 5000:13192] * torch.hann_window(8192)).abs().square()
    strongest = power.sort(1, descending=True).values
    # 5 % of the bins hold nearly all of a note's energy, and 20 % of a noise's.
    assert (strongest[:, :205].sum(1) / power.sum(1)).median() > 0.98
    noise = (
        torch.fft.rfft(torch.randn(1, 8192) * torch.hann_window(8192)).abs().square().sort(1, descending=True).values
    )
    assert noise[:, :205].sum() / noise.sum() < 0.5


def test_a_share_of_the_vocoders_windows_are_notes(tmp_path):
    stage = vocoder.VocoderStage(str(tmp_path), width=32, notes=0.25, mirrored=0)
    audio = torch.ones(16, 640)
    changed = (stage._with_notes(audio) != audio).any(1)
    assert int(changed.sum()) == 3 and not changed[:4].any()  # of the twelve that do not pass the VAE
    without = vocoder.VocoderStage(str(tmp_path), width=32, notes=0)
    assert without._with_notes(audio) is audio


def test_missing_stages_are_named(tmp_path, runs):
    with pytest.raises(UserError, match="train vae first"):
        unet.UNetStage(str(tmp_path))
    shutil.copytree(runs / "vae", tmp_path / "vae")
    with pytest.raises(UserError, match="train clap first"):
        unet.UNetStage(str(tmp_path))
    with pytest.raises(UserError, match="vocoder, unet") as error:
        assemble.build(runs)
    assert "\n" not in str(error.value)


def test_train_assemble_and_generate_with_stock_diffusers(tmp_path, corpus, runs, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(unet, "SAMPLES", 10240)
    stage = unet.UNetStage(str(runs), width=32)
    before = stage.ema["unet"].conv_in.weight.clone()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        limit_val_batches=1,
        val_check_interval=2,
    )
    clips = [{"audio": torch.from_numpy(audio), "caption": c.caption} for c, audio in validation(corpus, 0.64, 1)]
    windows = Windows(corpus, 128, seed=0, fill=False)
    trainer.fit(stage, DataLoader(windows, batch_size=2), DataLoader(clips, batch_size=1))
    assert {"val_eps_mse", "val_null_eps_mse"} <= trainer.callback_metrics.keys()
    (runs / "unet").mkdir()
    trainer.save_checkpoint(runs / "unet" / "last.ckpt")
    averaged = stage.ema["unet"].conv_in.weight
    assert not torch.equal(averaged, before) and not torch.equal(averaged, stage.parts["unet"].conv_in.weight)

    folder = tmp_path / "pocket"
    assert assemble.save(assemble.build(runs, allow_untrained=True), folder) < assemble.LIMIT
    assemble.save(assemble.build(runs, allow_untrained=True), folder)  # again over the first
    assert [path.name for path in tmp_path.iterdir()] == ["pocket"]
    pipeline = AudioLDM2Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vae.config.scaling_factor == pytest.approx(float(stage.scaling_factor), rel=1e-4)
    torch.testing.assert_close(pipeline.unet.conv_in.weight, averaged, atol=1e-3, rtol=1e-3)
    settings = dict(num_inference_steps=2, audio_length_in_s=2.56)
    audio = pipeline("a snare drum hit", generator=torch.Generator().manual_seed(0), **settings).audios
    assert audio.shape == (1, 40960) and np.isfinite(audio).all() and np.abs(audio).max() > 1e-4

    state = torch.load(runs / "vae" / "last.ckpt", weights_only=True)
    state["state_dict"]["vae.encoder.conv_in.bias"] += 1
    torch.save(state, runs / "vae" / "last.ckpt")
    with pytest.raises(UserError, match="another vae"):
        assemble.build(runs, allow_untrained=True)


def test_what_is_shipped_can_be_trained_further(tmp_path):
    """Started from and assembled again without a step between, the folder's weights and tokenizers are the same."""
    fresh = tmp_path / "again"
    assemble.save(assemble.build(tmp_path / "runs", start=POCKET), fresh, assemble.training(tmp_path / "runs", POCKET))
    weights = sorted(path.relative_to(POCKET) for path in POCKET.rglob("*.safetensors"))
    assert len(weights) == 7
    for name in [*weights, Path("training.json"), Path("tokenizer/tokenizer.json"), Path("tokenizer_2/tokenizer.json")]:
        assert (fresh / name).read_bytes() == (POCKET / name).read_bytes(), name


def test_one_batch_in_so_many_is_long_and_fused_attention_computes_the_same():
    stage = unet.UNetStage("nowhere", start=POCKET, long_every=3)
    lengths = []
    for step in range(6):
        stage._trainer = SimpleNamespace(training=True, global_step=step)
        lengths.append(stage.on_before_batch_transfer({"audio": torch.ones(1, 2 * unet.SAMPLES)}, 0)["audio"].shape[1])
    assert [length // unet.SAMPLES for length in lengths] == [1, 1, 2, 1, 1, 2]
    fused = unet.UNetStage("nowhere", start=POCKET, fused=True)
    z, t, captions = torch.randn(2, 8, 16, 16), torch.tensor([30, 800]), ["a dog", "a single note, flute, Flute D5"]
    for one in (stage, fused):
        one.start_from(POCKET)
    a, b = (
        one.predict(one.ema, z, t, one.encode_captions(one.ema, captions, torch.zeros(2, dtype=torch.bool)))
        for one in (stage, fused)
    )
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_windows_are_replayed_with_their_captions():
    stage = unet.UNetStage("nowhere", start=POCKET)
    stage.start_from(POCKET)
    assert all(torch.equal(a, b) for a, b in zip(stage.ema.parameters(), stage.parts.parameters(), strict=True))
    for step in range(3):
        z = torch.full((2, 8, 4, 16), float(step))
        mixed, captions = stage._with_earlier(z, [f"{step}"] * 2, 3)
        assert len(mixed) == len(captions) == 2 + min(3, 2 * step) and torch.equal(mixed[:2], z)
        assert all(
            torch.equal(row, torch.full_like(row, float(caption))) for row, caption in zip(mixed, captions, strict=True)
        )
    other, captions = stage._with_earlier(torch.zeros(1, 8, 8, 16), ["longer"], 3)
    assert captions == ["longer"] and other.shape == (1, 8, 8, 16)  # lengths do not mix


def test_matrices_are_orthogonalised_and_lookups_are_not(pieces):
    """Each matrix moves by a step of the size that AdamW's has; what is looked up moves only where it was."""
    parts = unet.trained_parts(len(pieces["unigram"]))
    optimizer = muon(parts, 1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in parts.parameters()} and len(held) == len(set(map(id, held)))
    conv, table, norm = (
        parts["unet"].conv_in.weight,
        parts["gpt2"].get_input_embeddings().weight,
        parts["unet"].conv_norm_out.weight,
    )
    before = [p.detach().clone() for p in (conv, table, norm)]
    torch.manual_seed(0)
    for p in (conv, norm):
        p.grad = torch.randn_like(p)
    table.grad = torch.zeros_like(table)
    table.grad[3] = 1.0
    optimizer.step()
    step = (conv.detach() - before[0]).flatten(1)
    assert step.square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.2)
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.5 * singular.max()
    moved = (table.detach() - before[1]).abs().amax(dim=1)
    assert moved[3] == pytest.approx(0.4e-3, rel=0.01) and not moved[:3].any() and not moved[4:].any()
    assert (norm.detach() - before[2]).abs().max() == pytest.approx(0.4e-3, rel=0.01)
