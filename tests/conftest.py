"""Every test has a cache of its own, so that it neither finds nor leaves anything."""
import pytest

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path/"cache"))
    return tmp_path/"cache"
