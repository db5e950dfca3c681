"""What is installed: pins with hashes for each requirement, and every Python that is promised is tested."""
import configparser, re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = configparser.ConfigParser(delimiters=["="], interpolation=None)
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
PINS = re.split(r"\n(?=\w)", (ROOT/"requirements.txt").read_text().partition("\n")[2])

def test_every_pin_is_one_version_with_hashes():
    assert len(PINS) > 100
    for pin in PINS:
        first, *hashes = pin.strip().split(" \\\n    ")
        assert re.match(r"[\w.-]+==[\w.]+( ; .+)?$", first), first
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes), first

def test_every_requirement_is_pinned_and_so_are_the_tools_that_build():
    asked = " ".join(SETTINGS["DEFAULT"][key] for key in ("requirements", "dev_requirements")).split()
    names = {re.match(r"[\w.-]+", word)[0] for word in asked}
    assert {"setuptools", "wheel", "uv"} <= names <= {pin.partition("==")[0] for pin in PINS}

def test_nothing_is_installed_without_its_hash():
    lines = [line for line in (ROOT/"Makefile").read_text().splitlines() if "pip install" in line]
    assert lines and all("--require-hashes" in line or "--no-deps -e ." in line for line in lines)

def test_every_python_that_is_promised_is_tested():
    tested = re.findall(r'"3\.(\d+)"', (ROOT/".github/workflows/test.yml").read_text())
    assert [int(minor) for minor in tested] == [10, 11, 12]
    assert SETTINGS["DEFAULT"]["min_python"] == "3.10" and "<3.13" in (ROOT/"setup.py").read_text()
