"""The last stages of a verb: latents -> mel -> audio, and the order of several candidates."""

from dataclasses import replace

import torch

from ddcm.audio.layout import fixed_layout
from ddcm.audio.postprocess import HIGH_HZ, energy_above, lift_high, postprocess
from ddcm.audio.windows import count_pieces, cross_fade
from ddcm.backbone import Backbone
from ddcm.backbone.vocoding import vocode
from ddcm.pipeline.output import Output
from ddcm.pipeline.stages import Latents, Setup
from ddcm.runtime.progress import Progress


def count_render_steps(setup: Setup, frames: int) -> int:
    """Batches of windows to decode, and pieces of audio to vocode."""
    return -(-len(fixed_layout(frames).starts) // setup.batch_size) + count_pieces(frames)


def render(setup: Setup, latents: Latents, progress: Progress) -> Output:
    """Decode the windows, join them, vocode and finish; as long as the reference and at its level."""
    backbone, recipe, reference = setup.backbone, setup.recipe, latents.reference
    assert latents.z is not None
    decoded = []
    for batch in latents.z.split(setup.batch_size):
        decoded.append(backbone.decode(batch).cpu())
        progress.step()
    mel = cross_fade(torch.cat(decoded), fixed_layout(reference.frames).starts)
    audio, vocoder, failed = vocode(mel, recipe.vocoder, backbone, progress)
    info = replace(latents.info, vocoder=vocoder, vocoder_failed=tuple(failed))
    rate = backbone.mel_spec.sample_rate
    if recipe.high_lift and reference.audio is not None:
        energy, wanted = (energy_above(x, rate, HIGH_HZ) for x in (audio, reference.audio))
        mel, factor = lift_high(mel, (energy / wanted) ** 0.5 if wanted > 0 else 1.0)
        info = replace(info, high_lift=factor)
        if factor > 1:
            audio, _, _ = vocode(mel, vocoder, backbone)
    audio = audio[: reference.samples]
    # Without an input there is nothing to match: the audio is its own reference.
    target = audio if reference.audio is None else reference.audio[: reference.samples]
    audio, target = reference.level.undo(audio), reference.level.undo(target)
    audio = postprocess(audio, target, rate, recipe.after)
    trace = tuple((timestep, backbone.decode(x0).cpu()) for timestep, x0 in latents.estimates)
    return Output(audio, rate, mel, latents.z.cpu(), info, trace=trace)


def rank(outputs: list[Output], backbone: Backbone, prompt: str) -> Output:
    """The candidate with the highest CLAP score, with the rest as its ``others``; without a prompt the first one."""
    if len(outputs) > 1 and prompt:
        scores = backbone.clap_scores([out.audio for out in outputs], prompt)
        ranked = sorted(zip(scores, outputs, strict=True), key=lambda pair: -pair[0])  # stable: ties stay by seed
        outputs = [replace(out, info=replace(out.info, clap_score=score)) for score, out in ranked]
    return replace(outputs[0], others=tuple(outputs[1:]))
