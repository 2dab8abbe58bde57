"""The GPU path on machines without a GPU: every verb, the codec's loops and training steps on fake ``cuda`` tensors.

Devices are not mixed. Nothing waits for the device inside a denoising loop or a training step, except what the tables
below name. On a CPU nothing else shows that: reading a tensor is free there.
"""

import functools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

import ddcm.codec.trajectory
import ddcm.pipeline.denoise
from ddcm.backbone.tiny import tiny_backbone
from ddcm.diffusion import loop
from ddcm.fit.module import CodebookModule
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer, SoftQuantizer
from ddcm.quantize.kmeans import kmeans
from ddcm.quantize.pretrained import Codebook
from tests.helpers.fake_gpu import FakeGpu

DTYPES = ("float32", "float16", "bfloat16")
STEPS = 3
AUDIO = torch.sin(torch.arange(16000) / 20) * 0.3
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def one_gpu():
    return FakeGpu()


@pytest.fixture
def gpu(one_gpu, monkeypatch):
    """A fake GPU that counts what waits for it in denoising loops."""
    one_gpu.regions = one_gpu._answers = 0
    one_gpu.questions.clear()
    with one_gpu as gpu:

        def counted(*arguments, **options):
            with gpu.count():
                return loop.denoise_loop(*arguments, **options)

        monkeypatch.setattr(ddcm.pipeline.denoise, "denoise_loop", counted)
        monkeypatch.setattr(ddcm.codec.trajectory, "denoise_loop", counted)
        yield gpu


class OneOperation:
    """In place of a UNet."""

    forward = SimpleNamespace(read_condition=lambda condition, dtype: condition.generated.mean())

    def __call__(self, x, t, context, *options):
        return x + context, x


@functools.cache  # for the one GPU
def load(dtype: str, whole: bool = False) -> DDCMPipeline:
    """Loaded before the first loop, as on a GPU after the first call. Without ``whole``, the UNet is one operation: a
    whole one takes seconds on tensors without values, and is the same for all verbs."""
    backbone = tiny_backbone(device="cuda", dtype=dtype, vae_dtype=dtype)
    if not whole:
        backbone.__dict__["unet"] = OneOperation()
    for part in ("vae", "unet", "vocoder"):
        getattr(backbone, part)
    backbone.null_condition()
    backbone.condition("rain")
    quantizer = HardQuantizer(1024).eval().requires_grad_(False)
    return DDCMPipeline(backbone, Codebook(quantizer, backbone.name, backbone.latent_digest, {}))


GAUSSIAN, CLASSIC = dict(book="gaussian", noise_atoms=256), dict(mode="classic", kbps=0.3)
VERBS = {
    "reconstruct": (0, lambda p: p.reconstruct(AUDIO, 16000)),
    "transform": (1, lambda p: p.transform(AUDIO, 16000, "rain", steps=STEPS, guidance_scale=2.0)),
    "transform, soft": (1, lambda p: p.transform(AUDIO, 16000, steps=STEPS, quantizer="soft", acts_on="estimates")),
    "transform, hard": (1, lambda p: p.transform(AUDIO, 16000, steps=STEPS, quantizer="hard", acts_on="estimates")),
    "transform, dpm++": (1, lambda p: p.transform(AUDIO, 16000, steps=STEPS, solver="dpm++")),
    "transform, unipc": (1, lambda p: p.transform(AUDIO, 16000, steps=STEPS, solver="unipc")),
    "generate": (1, lambda p: p.generate("rain", 1.0, steps=STEPS, n=3)),
    "compress": (1, lambda p: p.compress(AUDIO, 16000, steps=STEPS)),
    "compress, two windows": (1, lambda p: p.compress(AUDIO.repeat(15), 16000, steps=STEPS)),
    "compress, gaussian": (1, lambda p: p.compress(AUDIO, 16000, steps=STEPS, **GAUSSIAN)),
    "compress, classic": (1, lambda p: p.compress(AUDIO, 16000, steps=STEPS, **CLASSIC)),
    "compress, vq": (0, lambda p: p.compress(AUDIO, 16000, mode="vq")),
    "generate compressed": (2, lambda p: p.generate_compressed("rain", 1.0, steps=STEPS)),
}
"""name -> (denoising loops, the work)"""
WAITS = {
    # Atoms of a Gaussian codebook are drawn by Philox on the CPU, and are too many to send: the residual comes there.
    "compress, gaussian": {"read codec/noise_codebooks.py correlate": STEPS - 1},
    # Matching pursuit chooses an atom by the atoms before it, so it is a sequence of decisions of the host.
    "compress, classic": {"read codec/trajectory.py pick": STEPS - 1},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", VERBS)
def test_verbs_do_not_wait_in_their_loops(gpu, verb, dtype):
    loops, work = VERBS[verb]
    work(load(dtype, whole=verb == "transform"))
    assert (gpu.regions, gpu.questions) == (loops, Counter(WAITS.get(verb, {})))


@pytest.fixture(params=[{}, GAUSSIAN, CLASSIC], ids=["turbo", "gaussian", "classic"])
def file(request, tiny) -> bytes:
    """Made on the CPU: its bits are what an encoder writes."""
    return DDCMPipeline(tiny).compress(AUDIO, 16000, steps=STEPS, **request.param)


def test_decoding_does_not_wait_in_its_loop(file, gpu):
    out = load("float32").decompress(file)
    assert out.latent.device.type == "cpu" and gpu.regions == 1 and not gpu.questions


QUANTIZERS = {
    "hard": lambda: HardQuantizer(64),
    "hard, rotation": lambda: HardQuantizer(64, gradient="rotation"),
    "hard, ema": lambda: HardQuantizer(64, learn="ema"),
    "hard, cosine": lambda: HardQuantizer(64, distance="cosine"),
    "soft": lambda: SoftQuantizer(64),
    "soft, annealed": lambda: SoftQuantizer(64, final_temperature=0.1),
    "residual": lambda: ResidualQuantizer(3, HardQuantizer(64)),
    "projected": lambda: ProjectedQuantizer(HardQuantizer(64)),
}
# Whether an atom is to be revived: only then do ranks exchange their cells, which costs more than the question.
REVIVE = "read quantize/vector.py _revive"
FIT_WAITS = {
    # The temperature falls with the number of steps, which a checkpoint keeps with the codebook.
    "soft, annealed": {REVIVE: 1, "read quantize/soft.py mixture": 1},
    "residual": {REVIVE: 3},
}


def fit_step(quantizer, z: torch.Tensor, optimizer) -> None:
    loss = sum(quantizer(z).losses.values())
    if loss.requires_grad:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_step_of_a_fit_asks_only_for_unused_atoms(gpu, kind, dtype):
    quantizer = QUANTIZERS[kind]().to("cuda").train()
    z = torch.zeros(2, 8, 16, 16, device="cuda", dtype=getattr(torch, dtype))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    quantizer.initialise(z.movedim(1, -1).reshape(-1, 8))
    fit_step(quantizer, z, optimizer)  # Adam makes its state
    with gpu.count():
        fit_step(quantizer, z, optimizer)
    assert gpu.questions == Counter(FIT_WAITS.get(kind, {REVIVE: 1}))


def test_reviving_atoms_asks_for_the_seed_too():
    with FakeGpu(found=5) as gpu:
        quantizer = HardQuantizer(64, learn="ema").to("cuda").train()
        with gpu.count():
            quantizer(torch.zeros(2, 8, 16, 16, device="cuda"))
    assert gpu.questions == {REVIVE: 2}  # which atoms, and the number of the step


def test_kmeans_does_not_wait(gpu):
    cells = torch.zeros(1000, 8, device="cuda")

    def waits(iterations: int) -> Counter:
        gpu.questions.clear()
        with gpu.count():
            centroids = kmeans(cells, 64, iterations)
        assert centroids.device.type == "cuda"
        return Counter(gpu.questions)

    assert waits(1) == waits(20) == {"upload quantize/kmeans.py kmeans": 1}  # the cells that it starts from


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_lightnings_training_step_asks_what_the_quantizer_asks(gpu, monkeypatch, weight):
    backbone = load("float32").backbone
    monkeypatch.setattr(CodebookModule, "backbone", backbone)
    module = CodebookModule(HardQuantizer(64), diffusion_weight=weight).to("cuda").train()
    optimizer = torch.optim.Adam(module.quantizer.parameters(), lr=0.01)
    loop_of_fit = SimpleNamespace(total_batch_idx=3)
    module._trainer = SimpleNamespace(optimizers=[optimizer], world_size=1, global_step=3, fit_loop=loop_of_fit)
    module.log = module.log_dict = lambda *arguments, **options: None  # Lightning's own
    with gpu.count():
        module.training_step({"z": torch.zeros(2, 8, 16, 16, device="cuda")}, 0).backward()
        module.on_before_optimizer_step(optimizer)
    # NaN and infinity of the UNet are asked for once a step: they would spoil the atoms.
    checked = {"read backbone/latent_diffusion.py check": 1} if weight else {}
    assert gpu.questions == {REVIVE: 1} | checked


# The checks above find what they look for.


def run_with(planted, monkeypatch) -> None:
    """A denoising loop of the pipeline, with ``planted`` before each step."""
    real, backbone = loop.ddim_step, load("float32").backbone
    monkeypatch.setattr(loop, "ddim_step", lambda x, *rest: real(planted(x), *rest))
    x, timesteps = torch.zeros(1, 8, 8, 16, device="cuda"), range(900, 0, -900 // STEPS)
    ddcm.pipeline.denoise.denoise_loop(backbone.denoiser(), x, timesteps, backbone.alphas_cumprod)


@pytest.mark.parametrize(
    "planted, question",
    [(lambda x: x * float(x.mean()), "read"), (lambda x: x.cpu().to("cuda"), "read"),
     (lambda x: x + x.sum().item(), "read"), (lambda x: x if x.max() > 0 else -x, "read"),
     (lambda x: x[x > 0].sum() + x, "read"), (lambda x: x + torch.ones(x.shape).to("cuda"), "upload"),
     (lambda x: x + torch.tensor([1.0, 2.0] * 8, device="cuda"), "upload"),
     (lambda x: x[:, torch.arange(8)], "upload")],
    ids=["float", "cpu", "item", "if", "mask", "to", "tensor", "index"],
)  # fmt: skip
def test_a_planted_question_is_found(gpu, monkeypatch, planted, question):
    run_with(planted, monkeypatch)
    assert any(name.startswith(question) for name in gpu.questions) and gpu.questions.total() >= STEPS - 1


def test_a_planted_question_in_a_step_is_found(gpu, monkeypatch):
    real = HardQuantizer.approximate
    monkeypatch.setattr(HardQuantizer, "approximate", lambda self, x, codes: real(self, x * float(x.max()), codes))
    quantizer = HardQuantizer(64, threshold_usage_ratio=0.0).to("cuda").train()
    with gpu.count():
        quantizer(torch.zeros(2, 8, 16, 16, device="cuda"))
    assert gpu.questions.total() == 1


def test_planted_tensors_of_two_devices_raise(gpu, monkeypatch):
    with pytest.raises(RuntimeError, match="cuda"):
        run_with(lambda x: x + torch.ones(16), monkeypatch)
