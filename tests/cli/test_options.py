"""Flags come from dataclasses: names, types, choices, help; what does not fit is refused in one line."""

from dataclasses import dataclass
from typing import Literal

import pytest

from ddcm.cli import fit, main
from ddcm.cli.options import ModelSettings, Parser, accept_hyphens, add_settings, read_settings
from ddcm.codec.codec_settings import CodecSettings
from ddcm.errors import UserError
from ddcm.recipes import RECIPES, SETTINGS, Recipe, list_flags


@dataclass(frozen=True)
class Example:
    """An example."""

    shape: Literal["round", "square"] = "round"
    """of the table"""
    legs: int | None = None
    """how many"""
    folds: bool = False
    """away after use"""


def parser(**options) -> Parser:
    made = Parser(prog="example")
    add_settings(made, Example, **options)
    return made


def test_a_field_is_a_flag():
    text = parser().format_help()
    assert "--shape {round,square}" in text and "of the table" in text and "away after use" in text
    given = parser().parse_args(["--shape", "square", "--legs", "3", "--folds"])
    assert read_settings(given, Example) == Example("square", 3, True)
    assert read_settings(parser().parse_args([]), Example) == Example()


def test_with_a_recipe_a_flag_that_is_left_out_is_none_and_help_has_the_recipes_value():
    made = parser(recipe=("strong", Example(legs=25)))
    given = made.parse_args(["--folds", "false"])
    assert (given.shape, given.legs, given.folds) == (None, None, False)
    assert "how many (default: 25, from the recipe strong)" in " ".join(made.format_help().split())
    assert "legs" not in parser(names=("shape",)).parse_args([])


@pytest.mark.parametrize(
    "words, says",
    [
        (["--shape", "oval"], "shape 'oval' is not known; use one of: round, square"),
        (["--legs", "many"], "legs 'many' is not valid; it must be of type int"),
        (["--wheels", "4"], "unrecognized arguments: --wheels 4"),
        (["--shape"], "argument --shape: expected one argument"),
    ],
)
def test_refusals_are_one_line(words, says):
    with pytest.raises(UserError) as error:
        parser().parse_args(words)
    assert str(error.value) == says


def test_hyphens_are_accepted_in_names_alone():
    words = ["transform", "my-file", "--guidance-scale", "-1", "--vae-dtype=b-float", "--", "--a-b"]
    assert accept_hyphens(words) == [
        "transform",
        "my-file",
        "--guidance_scale",
        "-1",
        "--vae_dtype=b-float",
        "--",
        "--a-b",
    ]


@pytest.mark.parametrize("settings", [ModelSettings, CodecSettings])
def test_every_flag_of_a_dataclass_has_help(settings):
    made = Parser()
    add_settings(made, settings, settings.__dataclass_fields__.keys() - {"schedule"})
    help_of = {action.dest: action.help for action in made._actions}
    assert all(help_of[name] for name in settings.__dataclass_fields__ if name != "schedule")


def test_every_setting_of_a_recipe_has_help_and_a_verb():
    made = Parser()
    add_settings(made, Recipe, SETTINGS, recipe=("refined", RECIPES["refined"]))
    assert all(action.help for action in made._actions)
    assert set(SETTINGS) == {name for verb in ("reconstruct", "transform", "generate") for name in list_flags(verb)}


@pytest.mark.parametrize("stop, code", [(None, 0), (SystemExit(2), 2), (SystemExit("why"), 1)])
def test_fit_is_the_command_line_of_the_fit(monkeypatch, stop, code):
    seen = []

    def run(words):
        seen.append(words)
        if stop is not None:
            raise stop

    monkeypatch.setattr("ddcm.fit.cli.main", run)
    for verb in fit.VERBS:
        words = [verb, "-c", "a-file.yaml", "--data.root", "tests", "--data.batch-size", "2"]
        assert main.main(words) == code and seen.pop() == [*words[:-2], "--data.batch_size", "2"]


@pytest.mark.filterwarnings("ignore")
def test_only_the_help_of_fit_describes_the_quantizers(monkeypatch, capsys):
    pytest.importorskip("lightning")
    from ddcm.fit import cli
    from ddcm.quantize import QUANTIZERS

    def printed(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main([*words])
        assert not stop.value.code
        return capsys.readouterr().out

    text = printed("fit", "--help")
    assert all(f"\n--model.quantizer {each.__name__}" in text for each in QUANTIZERS.values())
    monkeypatch.setattr(cli, "describe_quantizers", lambda: pytest.fail("described at a start"))
    assert "quantizer:" in printed("fit", "--data.root", "examples", "--print_config")
