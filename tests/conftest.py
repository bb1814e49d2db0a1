"""Fixtures for tests with the real weights: made once in the user's home, shared by every test's own home."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def models_home() -> Path:
    """The home folder that has both bundled models, made if they aren't there."""
    from index.weights import ensure_embedder, ensure_generator
    from rag.generator import bundled_adapter
    from rag.settings import load_settings

    home = load_settings().home
    ensure_embedder(home)
    ensure_generator(home, bundled_adapter())
    return home


@pytest.fixture
def home(tmp_path: Path, models_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, with the models and without collections; VRAAGBAAK_HOME names it."""
    own = tmp_path / "home"
    own.mkdir()
    (own / "models").symlink_to(models_home / "models")
    monkeypatch.setenv("VRAAGBAAK_HOME", str(own))
    return own
