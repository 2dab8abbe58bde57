"""What only a GPU can show: it is not waited for, it repeats itself, and it agrees with the CPU."""

import functools

import pytest
import torch

from ddcm.backbone.tiny import tiny_backbone
from ddcm.codec.noise_codebooks import Hadamard
from ddcm.diffusion.loop import denoise_loop
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer, SoftQuantizer
from ddcm.quantize.kmeans import kmeans
from ddcm.runtime.memory import measure_cost

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]
DTYPES = ("float32", "float16", "bfloat16")


@functools.cache
def pipeline(device: str, dtype: str = "float32") -> DDCMPipeline:
    return DDCMPipeline(tiny_backbone(device=device, dtype=dtype))


@pytest.fixture
def no_waiting():
    """Inside, torch raises an error wherever it waits for the device."""

    def wait(mode: str) -> None:
        torch.cuda.set_sync_debug_mode(mode)

    yield wait
    wait("default")


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loop_never_waits_for_the_device(no_waiting, dtype, solver):
    backbone = pipeline("cuda", dtype).backbone
    denoise, x = backbone.denoiser("rain", guidance_scale=2.0), torch.randn(1, 8, 16, 16, device="cuda")
    denoise(x, 500)  # starts cuBLAS and cuDNN
    no_waiting("error")
    denoise_loop(denoise, x, [900, 500, 100], backbone.alphas_cumprod, solver=solver)
    no_waiting("default")
    backbone.check()


def test_a_hadamard_codebook_never_waits_and_has_the_cpus_bits(no_waiting):
    codebook, residual = Hadamard(7, 4000, 12), torch.randn(4000)
    atoms, weights = torch.tensor([3, 100, 4095]), torch.tensor([1, -1, 1])
    expected = codebook.synthesize(1, 2, atoms, weights)
    atoms, weights, on_device = atoms.cuda(), weights.cuda(), residual.cuda()
    codebook.synthesize(1, 2, atoms, weights)
    no_waiting("error")
    noise, correlations = codebook.synthesize(1, 2, atoms, weights), codebook.correlate(1, 2, on_device)
    no_waiting("default")
    assert torch.equal(noise.cpu(), expected)
    assert torch.allclose(correlations.cpu(), codebook.correlate(1, 2, residual), atol=1e-2)


@pytest.mark.parametrize("settings", [{}, {"book": "gaussian", "noise_atoms": 256}, {"mode": "classic", "kbps": 0.5}])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_codec_repeats_itself(speech, dtype, settings):
    pipe = pipeline("cuda", dtype)
    data = pipe.compress(speech[:16000], 16000, steps=4, verify=True, **settings)
    assert pipe.compress(speech[:16000], 16000, steps=4, **settings) == data
    assert torch.equal(pipe.decompress(data).latent, pipe.decompress(data).latent)


def test_windows_share_a_batch(speech):
    pipe = pipeline("cuda")
    data = pipe.compress(speech.repeat(10)[: 16000 * 22], 16000, steps=3, verify=True)
    assert pipe.decompress(data).latent.shape[0] == 3


@pytest.mark.parametrize("verb", ["reconstruct", "transform", "generate"])
def test_verbs_agree_with_the_cpu(speech, verb):
    def run(device: str):
        pipe = pipeline(device)
        if verb == "generate":
            return pipe.generate("rain", 2.0, steps=3, quantizer="none", n=1, seed=5)
        settings = dict(steps=3) if verb == "transform" else {}
        return getattr(pipe, verb)(speech[:32000], 16000, quantizer="none", seed=5, **settings)

    ours, theirs = run("cuda"), run("cpu")
    assert ours.audio.device.type == "cpu" and torch.isfinite(ours.audio).all()
    assert (ours.latent - theirs.latent).norm() < 0.02 * theirs.latent.norm()


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_verbs_run_in_half_precision(speech, dtype):
    out = pipeline("cuda", dtype).transform(speech[:32000], 16000, "rain", steps=3, quantizer="none")
    assert torch.isfinite(out.audio).all() and len(out.audio) == 32000


def test_candidates_share_a_batch():
    out = pipeline("cuda").generate("rain", 1.0, steps=2, quantizer="none", n=5)
    assert len(out.others) == 4


@pytest.mark.parametrize(
    "make",
    [HardQuantizer, lambda n: HardQuantizer(n, learn="ema"), SoftQuantizer,
     lambda n: ResidualQuantizer(2, HardQuantizer(n)), lambda n: ProjectedQuantizer(HardQuantizer(n))],
    ids=["hard", "ema", "soft", "residual", "projected"],
)  # fmt: skip
def test_a_fit_agrees_with_the_cpu(make):
    z = torch.randn(4, 8, 16, 16)
    found = {}
    for device in ("cpu", "cuda"):
        quantizer = make(64).to(device).train()
        quantizer.initialise(z.to(device).movedim(1, -1).reshape(-1, 8))
        result = quantizer(z.to(device).requires_grad_())
        if any(loss.requires_grad for loss in result.losses.values()):
            sum(result.losses.values()).backward()
        found[device] = result.z.detach().cpu()
    assert (found["cpu"] - found["cuda"]).abs().mean() < 1e-3


def test_kmeans_agrees_with_the_cpu():
    cells = torch.randn(5000, 8)
    ours, theirs = kmeans(cells.cuda(), 16, iterations=3).cpu(), kmeans(cells, 16, iterations=3)
    assert (ours - theirs).abs().max() < 1e-3


@pytest.mark.slow
def test_compiled_is_the_same_to_rounding():
    plain, compiled = pipeline("cuda").backbone, tiny_backbone(device="cuda", compiled=True)
    x = torch.randn(1, 8, 16, 16, device="cuda")
    expected = plain.denoiser("rain", guidance_scale=2.0)(x, 500)
    for _ in range(3):  # the third call replays the CUDA graph
        found = compiled.denoiser("rain", guidance_scale=2.0)(x, 500)
    assert torch.allclose(found, expected, atol=1e-3)


def test_memory_is_the_devices():
    with measure_cost(torch.device("cuda")) as cost:
        torch.empty(1 << 26, device="cuda")
    assert cost.peak_mib >= 64
