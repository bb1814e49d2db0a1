from pathlib import Path

import pytest

from corpus.errors import SettingsError
from rag.answerer import AnswererConfig
from rag.generator import ReaderLimits
from rag.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working directory, and no settings in the environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"VRAAGBAAK_{name.upper()}", raising=False)
    home, working = tmp_path / "home", tmp_path / "working"
    home.mkdir()
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("VRAAGBAAK_HOME", str(home))
    return home


def test_defaults_are_those_of_the_parts(home: Path) -> None:
    settings = load_settings()
    assert settings.home == home
    assert settings.reader_limits() == ReaderLimits()
    assert settings.answerer() == AnswererConfig()
    from corpus import ChunkingConfig, ReadLimits
    from index.fusion import FusionConfig

    assert settings.read_limits() == ReadLimits()
    assert settings.chunking() == ChunkingConfig()
    assert settings.fusion() == FusionConfig()


def test_option_environment_working_file_home_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "vraagbaak.toml").write_text("top_k = 1\nthreads = 1\nprompt_tokens = 501\nfull_tokens = 61\n")
    Path("vraagbaak.toml").write_text("top_k = 2\nthreads = 2\nprompt_tokens = 502\n")
    monkeypatch.setenv("VRAAGBAAK_THREADS", "3")
    monkeypatch.setenv("VRAAGBAAK_TOP_K", "3")
    settings = load_settings(top_k=4)
    assert (settings.top_k, settings.threads, settings.prompt_tokens, settings.full_tokens) == (4, 3, 502, 61)


def test_home_may_stand_in_the_working_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VRAAGBAAK_HOME")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "vraagbaak.toml").write_text("top_k = 7\n")
    Path("vraagbaak.toml").write_text('home = "../elsewhere"\n')
    settings = load_settings()
    assert settings.home.resolve() == tmp_path / "elsewhere"
    assert settings.top_k == 7


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VRAAGBAAK_TOPK", "3", r"environment variable VRAAGBAAK_TOPK: there is no such setting; .*top_k\?"),
        ("VRAAGBAAK_TOP_K", "drie", r"environment variable VRAAGBAAK_TOP_K is 'drie': .*integer"),
        ("VRAAGBAAK_TOP_K", "0", r"VRAAGBAAK_TOP_K is '0': .*greater than or equal to 1"),
        ("VRAAGBAAK_CHUNK_TARGET_TOKENS", "300", r"chunk_min_tokens <= chunk_target_tokens"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=message):
        load_settings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("colour = 1", r"colour in .*vraagbaak\.toml: there is no such setting"),
        ("top_k = 99", r"top_k in .*vraagbaak\.toml is 99: .*less than or equal to 9"),
        ("top_k = ", r"vraagbaak\.toml isn't valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(content: str, message: str) -> None:
    Path("vraagbaak.toml").write_text(content)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_an_option_that_is_wrong_is_named() -> None:
    with pytest.raises(SettingsError, match="setting top_k is 0"):
        load_settings(top_k=0)
    with pytest.raises(SettingsError, match="setting nonsense: there is no such"):
        load_settings(nonsense=1)


def test_every_setting_says_what_it_costs() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
