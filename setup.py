"""Packaging, read from settings.ini so that every fact stands there once."""
import shutil, subprocess
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read("settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]

TRAVELS = ["nbs/[0-9]*.ipynb", "nbs/assets/*", "nbs/templates/*", "params/*.yaml", "benchmarks/many.json",
           "_quarto.yml", "settings.ini"]
DESCRIBE = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty= with local changes"]

class BuildWithProject(build_py):
    "A wheel brings the notebooks, and all that they and the pages need, in pneumo_nb/project."
    def run(self):
        super().run()
        if self.editable_mode: return
        project = Path(self.build_lib)/"pneumo_nb/project"
        shutil.rmtree(project, ignore_errors=True)  # of an earlier build
        for file in (f for pattern in TRAVELS for f in Path().glob(pattern) if not f.match("readme_*.webp")):
            (project/file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, project/file)
        if Path(".git").exists():  # not an enclosing checkout of something else
            commit = subprocess.run(DESCRIBE, capture_output=True, text=True)
            if commit.returncode == 0: (project/"commit.txt").write_text(commit.stdout, encoding="utf-8")

setup(
    cmdclass=dict(build_py=BuildWithProject),
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    packages=find_packages(include=["pneumo_nb", "pneumo_nb.*"]),
    python_requires=f">={cfg['min_python']},<3.13",
    install_requires=cfg["requirements"].split(),
    extras_require={key.removesuffix("_requirements"): value.split()
                    for key, value in cfg.items() if key.endswith("_requirements")},
    entry_points={"console_scripts": [cfg["console_scripts"]], "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
)
