"""A recipe of one's own: a row of settings, put beside the others.

    python docs/examples/recipe.py transform examples/melodic.flac -o out/melted.wav --recipe melted
    python docs/examples/recipe.py recipes

The second half of the file is ``ddcm`` with this row known; in Python, importing the file is enough.
"""

from ddcm.recipes import RECIPES, Recipe

RECIPES["melted"] = Recipe(
    "transform", "every estimate of the last half is a loose mixture of atoms",
    quantizer="soft", temperature=2.0, acts_on="late-estimates", vocoder="refined", strength=0.5, solver="unipc",
    steps=16,
)  # fmt: skip

if __name__ == "__main__":
    from ddcm.cli.main import main

    raise SystemExit(main())
