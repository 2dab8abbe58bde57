"""The doors, as a user opens them: exit codes, one line for every error, nothing half-written."""

import functools
import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from ddcm.cli.main import main
from tests.audio.test_files import broken_files, tone
from tests.conftest import EXAMPLES, ROOT, reconstruct_fails, sounds

TINY = ["--backbone", "tiny", "--quantizer", "none"]
FRESH = ("absent.wav: no such file", "neither a codebook")  # errors that are seen in a process of their own


@functools.cache
def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "infer.py", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["transform", "--help"]])
def test_help_and_tables_answer_within_a_second_of_cpu(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_recipes_lists_every_recipe():
    from ddcm.recipes import RECIPES

    said = run("recipes").stdout
    assert all(f"{name}: {recipe.verb}" in said for name, recipe in RECIPES.items())


def test_reconstruct_a_file(tmp_path):
    assert main(["reconstruct", str(EXAMPLES / "bird.flac"), "-o", str(tmp_path / "out.wav"), *TINY]) == 0
    assert soundfile.info(tmp_path / "out.wav").frames == soundfile.info(EXAMPLES / "bird.flac").frames


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "phone.wav", tone(0.4, 8000), 8000)
    soundfile.write(folder / "studio.wav", tone(0.4, 48000, 2), 48000)
    soundfile.write(folder / "deep.wav", tone(0.4, 44100), 44100, subtype="PCM_24")
    soundfile.write(folder / "song.mp3", tone(0.4, 44100, 2), 44100)
    soundfile.write(folder / "song.ogg", tone(0.4, 44100), 44100)
    broken_files(folder)
    return folder


GOOD = {"phone.wav", "studio.wav", "deep.wav", "song.mp3.wav", "song.ogg.wav"}


def test_a_mixed_folder(tmp_path, mixed, capsys):
    out = tmp_path / "out"
    assert main(["transform", str(mixed), "-o", str(out), "--steps", "2", *TINY]) == 2
    assert {path.name for path in sounds(out)} == GOOD and (out / "manifest.csv").is_file()
    assert all(soundfile.info(out / name).frames == 6400 for name in GOOD)
    said = capsys.readouterr().err
    for bad in ("empty.wav", "text.wav", "none.wav", "nan.wav", "inf.wav", "cut.wav", "cut.flac"):
        assert sum(bad in line for line in said.splitlines() if line.startswith("ddcm transform:")) == 1
    assert "7 of 12 files failed, 5 written" in said and "Traceback" not in said


def test_a_rerun_skips_what_is_there(tmp_path, mixed):
    out = tmp_path / "out"
    command = ["reconstruct", str(mixed), "-o", str(out), *TINY]
    main(command)
    times = {path.name: path.stat().st_mtime_ns for path in sounds(out)}
    (out / "phone.wav").unlink()
    main(command)
    for path in sounds(out):
        assert (path.stat().st_mtime_ns == times[path.name]) == (path.name != "phone.wav")
    main([*command, "--overwrite"])
    assert all(path.stat().st_mtime_ns != times[path.name] for path in sounds(out))


def test_alone_equals_in_a_folder(tmp_path):
    options = ["--steps", "4", "--seed", "5", *TINY]
    main(["transform", str(EXAMPLES), "-o", str(tmp_path / "all"), *options])
    main(["transform", str(EXAMPLES / "drumloop.flac"), "-o", str(tmp_path / "one"), *options])
    alone, among = (soundfile.read(tmp_path / name / "drumloop.wav")[0] for name in ("one", "all"))
    assert np.array_equal(alone, among)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["reconstruct", "absent.wav", "-o", "OUT"], "absent.wav: no such file"),
        (["transform", "examples", "-o", "OUT", "--strength", "2"], "nearest valid one is 1"),
        (["transform", "examples", "-o", "OUT", "--recipe", "input-basd"], "nearest is 'input-based'"),
        (["reconstruct", "configs", "-o", "OUT"], "no audio in configs"),
        (["reconstruct", "examples", "-o", "OUT/a.wav"], "one file"),
        (["transform", "examples/bird.flac", "-o", "OUT", "--quantizer", "hard"], "--codebook"),
        (["transform", "examples", "-o", "OUT", "--dtype", "float8"], "dtype"),
        (["inspect", "pyproject.toml"], "neither a codebook"),
        (["inspect", "no/such/thing"], "neither a folder nor a hub name"),
    ],
)
def test_errors_are_one_line_and_exit_2(tmp_path, monkeypatch, capsys, arguments, says):
    arguments = [a.replace("OUT", str(tmp_path / "out")) for a in arguments]
    if arguments[0] != "inspect":
        arguments += ["--backbone", "tiny"] + (["--quantizer", "none"] if "--quantizer" not in arguments else [])
    if says in FRESH:
        done = run(*arguments)
        code, stderr = done.returncode, done.stderr
    else:  # in this process, which has everything imported
        monkeypatch.chdir(ROOT)
        code, stderr = main(arguments), capsys.readouterr().err
    assert code == 2 and says in stderr and "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


def test_outputs_are_not_overwritten(tmp_path, capsys):
    target = tmp_path / "a.wav"
    target.write_bytes(b"mine")
    source = str(EXAMPLES / "bird.flac")
    assert main(["reconstruct", source, "-o", str(target), *TINY]) == 2
    assert "--overwrite" in capsys.readouterr().err and target.read_bytes() == b"mine"
    assert main(["reconstruct", source, "-o", str(target), "--overwrite", *TINY]) == 0
    assert main(["reconstruct", str(target), "-o", str(target), "--overwrite", *TINY]) == 2
    assert "same file" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["reconstruct", "transform"])
def test_the_vocoder_flag_reaches_the_verb(tmp_path, verb):
    heard = []
    for vocoder in ("backbone", "refined"):
        target = tmp_path / f"{vocoder}.wav"
        main([verb, str(EXAMPLES / "bird.flac"), "-o", str(target), "--vocoder", vocoder, *TINY])
        heard.append(soundfile.read(target)[0])
    assert not np.array_equal(*heard)


def test_processes_share_a_folder_out(tmp_path, monkeypatch):
    written = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main(["reconstruct", str(EXAMPLES), "-o", str(tmp_path / str(rank)), *TINY]) == 0
        written.append({path.name for path in sounds(tmp_path / str(rank))})
    assert not written[0] & written[1] and len(written[0] | written[1]) == 6


def test_interrupt_keeps_what_is_finished(tmp_path, monkeypatch, capsys):
    reconstruct_fails(monkeypatch, 3, KeyboardInterrupt())
    assert main(["reconstruct", str(EXAMPLES), "-o", str(tmp_path), *TINY]) == 130
    assert len(sounds(tmp_path)) == 2 and "interrupted" in capsys.readouterr().err


def test_inspect_a_backbone_with_both_head_layouts(capsys):
    assert main(["inspect", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "latent digest" in said and "0.8" in said
    assert torch.get_num_threads() >= 1


def test_generate_writes_every_candidate_and_its_score(tmp_path, capsys):
    command = ["generate", "--prompt", "a bass drum", "--recipe", "full-diffusion", "--steps", "3",
               "--duration_s", "0.5", "--backbone", "tiny"]  # fmt: skip
    assert main([*command, "-o", str(tmp_path)]) == 0
    names = ["a-bass-drum.wav", "a-bass-drum-2.wav", "a-bass-drum-3.wav"]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "a-bass-drum.json"}
    assert all(soundfile.info(tmp_path / name).frames == 8000 for name in names)
    said = json.loads((tmp_path / "a-bass-drum.json").read_text())
    scores = [row["clap_score"] for row in said["candidates"]]
    assert [row["file"] for row in said["candidates"]] == names and scores == sorted(scores, reverse=True)
    assert all(f"{score:.4f}" in capsys.readouterr().out for score in scores[:1])
    assert main([*command, "-o", str(tmp_path)]) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "one.flac"), "--n", "1"]) == 0
    assert soundfile.info(tmp_path / "one.flac").frames == 8000 and not (tmp_path / "one.json").exists()


def test_the_trace_is_a_picture(tmp_path):
    options = ["--steps", "3", "--trace", *TINY]
    assert main(["transform", str(EXAMPLES / "bird.flac"), "-o", str(tmp_path / "bird.wav"), *options]) == 0
    assert main(["generate", "-o", str(tmp_path / "new.wav"), "--duration_s", "0.5", *options]) == 0
    for name in ("bird", "new"):
        assert (tmp_path / f"{name}.trace.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("verb", ["reconstruct", "transform", "generate"])
def test_every_setting_has_its_flag(verb):
    """A recipe's settings can all be reached: each is a flag of the verbs that it matters for."""
    from ddcm.recipes import SETTINGS, Recipe, list_flags

    assert set(SETTINGS) == set(Recipe.__dataclass_fields__) - {"verb", "about"}
    said = run(verb, "--help").stdout
    assert all((f"--{name} " in said) == (name in list_flags(verb)) for name in SETTINGS) and list_flags(verb)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["reconstruct", "examples", "--recipe", "ultimate-fx"], "nearest is 'ultimate-fix'"),
        (["reconstruct", "examples", "--after", "volume,reverb"], "after 'reverb'"),
        (["reconstruct", "examples", "--mode_share", "1.5"], "mode_share 1.5"),
        (["transform", "examples", "--solver", "euler"], "solver 'euler'"),
        (["generate", "--temperature", "-1"], "temperature -1"),
        (["generate", "--recipe", "input-based"], "is for transform"),
        (["generate", "--duration_s", "0"], "duration_s 0"),
        (["generate", "--n", "0"], "n 0"),
    ],
)
def test_settings_are_refused_by_name(tmp_path, arguments, says, capsys):
    assert main([*arguments, "-o", str(tmp_path / "out"), "--backbone", "tiny"]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_advice_is_printed(capsys):
    assert main(["recipes", "--for", "speech"]) == 0
    best, *seed = capsys.readouterr().out.splitlines()
    assert best.startswith("refined") and "measured as best" in best
    assert [line.split()[0] for line in seed] == ["ultimate-fix", "final-optimized"]
    assert main(["recipes", "--for", "opera"]) == 2
