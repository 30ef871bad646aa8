"""What pyproject.toml cannot say: conf/ stands beside the package, and in a wheel within it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class WithConf(build_py):
    """Adds conf/ as ganinv/conf; an editable install reads the checkout's own."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "ganinv" / "conf"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(HERE / "conf", target)


setup(cmdclass={"build_py": WithConf})
