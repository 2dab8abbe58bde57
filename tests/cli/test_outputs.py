"""What ``-o`` may be for each verb, what follows where it is left out, and what is printed at the end."""

import inspect
import shlex

import pytest
import soundfile
from jsonargparse import Namespace

from ddcm.cli import codec
from ddcm.cli.main import NAMES, main, make_parser
from ddcm.cli.outputs import SUFFIXES, choose_out, describe_file, describe_folder
from ddcm.errors import UserError
from tests.audio.test_files import tone

TINY = ["--backbone", "tiny"]


def flags(out, **more) -> Namespace:
    return Namespace({"out": out, "inputs": ["in"], "prompt": ""} | more)


@pytest.mark.parametrize("verb", SUFFIXES)
def test_the_kind_of_an_output_is_checked(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in {".mp3", ".WAV", ".ddcm", ".csv", ".html"} - set(SUFFIXES[verb]):
        if suffix.lower() not in SUFFIXES[verb]:
            with pytest.raises(UserError, match=rf"-o a{suffix}: {verb} does not write {suffix.lower()}; name a "):
                choose_out(verb, flags(f"a{suffix}"))
    for name in ["out", "run.2", *(f"a{suffix}" for suffix in SUFFIXES[verb])]:
        assert choose_out(verb, flags(name)) == name
    (tmp_path / "odd.mp3").mkdir()  # a folder that is there
    assert choose_out(verb, flags("odd.mp3")) == "odd.mp3"


@pytest.mark.parametrize("verb", SUFFIXES)
def test_every_verb_with_an_output_has_its_kind(verb):
    assert any("--out" in action.option_strings for action in parser_of(verb)._actions)


def parser_of(verb: str):
    return make_parser(verb)._subcommands_action._name_parser_map[verb]


def test_the_table_of_kinds_is_complete():
    assert {verb for verb in NAMES if "--out" in parser_of(verb).format_help()} == set(SUFFIXES)


@pytest.mark.parametrize(
    "verb, more, wanted",
    [
        ("compress", {"inputs": ["in/a.wav"]}, "in/a.ddcm"),
        ("decompress", {"inputs": ["a.ddcm"]}, "a.wav"),
        ("generate", {"prompt": "Rain, far away"}, "rain-far-away.wav"),
        ("generate", {}, "unconditional.wav"),
        ("evaluate", {}, None),
    ],
)
def test_an_obvious_output_is_inferred(verb, more, wanted):
    assert choose_out(verb, flags(None, **more)) == wanted


@pytest.mark.parametrize(
    "verb, inputs", [("reconstruct", ["a.wav"]), ("compress", ["a.wav", "b.wav"]), ("compress", ["."]), ("compare", [])]
)
def test_another_output_is_asked_for_by_its_flag(verb, inputs):
    with pytest.raises(UserError, match="-o is missing: name a folder"):
        choose_out(verb, flags(None, inputs=inputs))


def test_lines_on_what_was_written(tmp_path):
    assert describe_file(tmp_path, 3.294, {"kbps": 0.99912, "bytes": 411, "features": "clap"}) == (
        f"{tmp_path}: 3.29 s, kbps 0.9991, bytes 411"
    )
    assert describe_folder("out", [(2.0, 250), (2.0, 250)], 3) == (
        "out: 2 files written, 4.00 s, 500 bytes, 1 kbps, 3 there before"
    )
    assert describe_folder("out", []) == "out: 0 files written"


def test_what_was_written_is_printed_beside_the_input(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(0.2, 16000), 16000)
    assert main(["compress", "a.wav", "--steps", "3", *TINY]) == 0
    printed = capsys.readouterr()
    size = (tmp_path / "a.ddcm").stat().st_size
    assert printed.out == f"a.ddcm: 0.20 s, bytes {size}, kbps {size / 125 / 0.2:.6g}\n"
    assert "1 kbps cannot be met for 0.2 s; the file has" in printed.err  # its header alone is more
    assert main(["decompress", "a.ddcm", *TINY]) == 2 and "a.wav exists" in capsys.readouterr().err
    assert main(["decompress", "a.ddcm", "-o", "new", *TINY]) == 0
    assert capsys.readouterr().out == "new/a.wav: 0.20 s\n"
    assert main(["reconstruct", ".", "-o", "all", "--quantizer", "none", *TINY]) == 0
    assert capsys.readouterr().out == "all: 2 files written, 0.40 s\n"
    assert main(["reconstruct", ".", "-o", "all", "--quantizer", "none", *TINY]) == 0
    assert capsys.readouterr().out.startswith("all: ")


def test_a_prompt_by_position(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--duration_s", "0.1", "--steps", "2", "--quantizer", "none", *TINY]
    assert main(["generate", "rain", *short]) == main(["generate", "--prompt", "rain", "-o", "b.wav", *short]) == 0
    assert (tmp_path / "rain.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert capsys.readouterr().out.startswith("rain.wav: 0.10 s, seed 0")
    assert main(["generate", "rain", "--prompt", "snow"]) == 2 and "two prompts" in capsys.readouterr().err


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_has_two_examples_that_parse(verb):
    _, *examples = (line for line in inspect.getdoc(NAMES[verb]).splitlines() if line)
    assert len(examples) == 2 and all(line in parser_of(verb).format_help() for line in examples)
    for line in examples:
        program, *words = shlex.split(line)
        assert program == "ddcm" and words[0] == verb and make_parser(verb).parse_args(words).verb == verb


@pytest.mark.parametrize("verb", [codec.compress, codec.decompress])
def test_an_inferred_output_is_in_the_help(verb):
    assert "beside one input" in " ".join(parser_of(verb.__name__).format_help().split())
