"""A wheel also carries the checkpoints, configurations and recordings that a checkout has beside the package."""

from pathlib import Path
from shutil import copytree, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = ("checkpoints", "configs", "examples")  # copied into ddcm/data: see ddcm.runtime.files


class BuildWithData(build_py):
    def run(self) -> None:
        if self.editable_mode:  # an editable install reads them from the checkout
            return super().run()
        package = Path(self.build_lib, "ddcm")
        rmtree(package, ignore_errors=True)  # modules of an earlier build that are gone by now
        super().run()
        for name in DATA:
            copytree(name, package / "data" / name)


setup(cmdclass={"build_py": BuildWithData})
