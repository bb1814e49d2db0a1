"""Settings: environment variables `VRAAGBAAK_…`, then `vraagbaak.toml`, then the defaults.

The file is looked for in the working directory and in the home folder; the former wins, key by key. A key
that isn't a setting is an error wherever it stands. Every description says what changing the setting costs.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from platformdirs import user_data_path
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SettingsSourceError,
)

from corpus.errors import SettingsError
from corpus.limits import MIB, ReadLimits

if TYPE_CHECKING:
    from corpus import ChunkingConfig
    from index.fusion import FusionConfig
    from rag.answerer import AnswererConfig
    from rag.generator import ReaderLimits

PREFIX = "VRAAGBAAK_"
FILE_NAME = "vraagbaak.toml"


def default_home() -> Path:
    """Where models and collections are kept unless VRAAGBAAK_HOME says otherwise."""
    return user_data_path("vraagbaak", appauthor=False)


class Settings(BaseSettings):
    """Everything that can be set. Make it with `load_settings`, for its SettingsError."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    home: Path = Field(
        default_factory=default_home,
        description="Folder of models and collections. Another one starts empty: the models (1.2 GB) are "
        "made again there, and documents have to be ingested again or restored from a backup.",
    )
    embedder: str = Field(
        "bundled",
        min_length=1,
        description='Embedding model: "bundled", or a sentence-transformers folder or hub name. '
        "Collections made with another one can't be opened any more; all documents have to be"
        " ingested again.",
    )
    generator: str = Field(
        "bundled",
        min_length=1,
        description='Generator: "bundled", or the folder or hub name of a causal LM. Collections stay as '
        "they are. Only the bundled reader is trained and calibrated for this; a larger model"
        " is slower in proportion.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads of the models; 0 is one a core. More than there are cores makes it slower.",
    )
    top_k: int = Field(
        5,
        ge=1,
        le=9,
        description="Passages offered to the reader. Each costs about 0.2 s an answer on two cores, finds"
        " more and distracts more; passages that don't fit in prompt_tokens are dropped, last"
        " first.",
    )
    prompt_tokens: int = Field(
        1536,
        ge=256,
        le=32768,
        description="Most tokens of a prompt, passages and question together: about 1 ms each on two cores.",
    )
    short_tokens: int = Field(
        32, ge=1, le=1024, description="Most tokens of a short answer, about 35 ms each; a longer one is cut."
    )
    full_tokens: int = Field(
        160, ge=1, le=4096, description="Most tokens of a full answer, about 35 ms each; a longer one is cut."
    )
    max_question_chars: int = Field(
        2000,
        ge=1,
        le=20000,
        description="Longest question, in characters; a longer one is refused. A long question takes the "
        "place of passages in the prompt.",
    )
    chunk_target_tokens: int = Field(
        160,
        ge=1,
        le=480,
        description="Size that a passage is near, in the embedding model's tokens. Holds for new "
        "collections only.",
    )
    chunk_max_tokens: int = Field(
        200,
        ge=1,
        le=480,
        description="Size that a passage never exceeds. Larger ones are found less precisely and fewer "
        "fit in the prompt. Holds for new collections only.",
    )
    chunk_min_tokens: int = Field(
        40,
        ge=0,
        le=480,
        description="A section smaller than this may share a passage with its neighbour. New collections "
        "only.",
    )
    fusion_candidates: int = Field(
        100,
        ge=1,
        le=10000,
        description="Passages taken from each side of the index before they are fused: more is slower, "
        "and rarely better.",
    )
    fusion_weight: float = Field(
        0.1,
        ge=0,
        le=10,
        description="How much words add to vectors in the order of passages; 0 leaves the order to the "
        "vectors.",
    )
    read_max_mib: int = Field(
        50, ge=1, description="Largest file that is read, in MiB. Reading takes several times that in memory."
    )
    read_max_corpus_mib: int = Field(4096, ge=1, description="Largest .jsonl, in MiB; it is streamed.")
    read_max_text_chars: int = Field(
        20_000_000,
        ge=1,
        description="Longest text that a document may have. Its passages take hours to embed.",
    )
    read_max_unpacked_mib: int = Field(
        300, ge=1, description="What a .docx or the like may unpack to, in MiB: the guard against zip bombs."
    )
    read_max_compression_ratio: int = Field(
        200, ge=1, description="How far a part of a .docx or the like may be compressed; likewise."
    )
    read_timeout_s: float = Field(
        120.0, gt=0, description="Seconds after which reading one document is given up."
    )
    read_max_memory_mib: int = Field(
        1536,
        ge=64,
        description="Memory that reading one document may take, in MiB; past it the document fails.",
    )
    serve_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that `serve` listens on. Any other than this machine's own needs serve_keys, or "
        "serve_open_to_all said in so many words.",
    )
    serve_port: int = Field(
        8000, ge=0, le=65535, description="Port that `serve` listens on; 0 takes a free one."
    )
    serve_keys: bool = Field(
        False, description="Whether callers need an API key; they are made with `vraagbaak keys create`."
    )
    serve_open_to_all: bool = Field(
        False,
        description="Serve without keys on any address. Whoever reaches it may read, write and delete.",
    )
    serve_allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names that the service is reached under, besides its address; any other Host is refused. "
        "In the environment separated by commas.",
    )
    serve_allow_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Other sites (https://…) whose pages may call the service; whoever opens them lends them "
        "what they may themselves. In the environment separated by commas.",
    )
    serve_readers: int = Field(
        1,
        ge=1,
        le=64,
        description="Answers that are generated at once. They share the same cores, so more makes each slower.",
    )
    serve_queue_length: int = Field(
        8,
        ge=0,
        description="Questions that may wait for the reader; the next is refused. Each place adds one answer's "
        "time to the wait of the last.",
    )
    serve_search_queue_length: int = Field(
        256,
        ge=0,
        description="Searches that may wait; the next is refused. Each place adds one search's time.",
    )
    serve_deadline_s: float = Field(
        60.0, ge=1, description="Most seconds for one request, waiting included; past it the caller gets 504."
    )
    serve_batch_deadline_s: float = Field(600.0, ge=1, description="The same for a batch of questions.")
    serve_body_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Seconds that the body of a request may take to arrive. An upload over a slow line needs more.",
    )
    serve_requests_per_minute: int = Field(
        600, ge=0, description="Requests a minute for each key; 0 is no limit. Past it the caller gets 429."
    )
    serve_burst: int = Field(
        120, ge=1, description="Requests that a key may make at once, before that rate holds."
    )
    serve_max_upload_mib: int = Field(
        256,
        ge=1,
        description="Largest upload, in MiB, all its files together; it is on disk until it is taken in.",
    )
    serve_max_upload_files: int = Field(200, ge=1, description="Most files in one upload.")
    serve_max_queued_jobs: int = Field(
        200, ge=1, description="Uploads that may wait; each takes the size of its files on disk meanwhile."
    )
    serve_shutdown_s: float = Field(
        30.0,
        ge=0,
        description="Seconds that what runs may go on after a signal to stop. Whoever starts the service has to "
        "wait longer than that before killing it.",
    )
    serve_samples: bool = Field(
        True, description="Whether the sample documents go in where there is no collection yet."
    )
    serve_log_content: bool = Field(
        False, description="Whether questions and answers are written to the log, where others may read them."
    )
    serve_traces: bool = Field(False, description="OpenTelemetry traces by stage; needs vraagbaak[traces].")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, files; later files win over earlier ones."""
        given = getattr(init_settings, "init_kwargs", {}).get("home")
        files = settings_files(given)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=list(files))

    @field_validator("home")
    @classmethod
    def _expand_home(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("serve_allow_hosts", "serve_allow_origins", mode="before")
    @classmethod
    def _split_names(cls, names: object) -> object:
        """A list stands in a file, commas in an environment variable."""
        if isinstance(names, str):
            return tuple(name.strip() for name in names.split(",") if name.strip())
        return names

    @model_validator(mode="after")
    def _check_chunk_sizes(self) -> Self:
        if not self.chunk_min_tokens <= self.chunk_target_tokens <= self.chunk_max_tokens:
            raise ValueError("chunk_min_tokens <= chunk_target_tokens <= chunk_max_tokens doesn't hold")
        return self

    def read_limits(self) -> ReadLimits:
        """The limits on one file."""
        return ReadLimits(
            max_bytes=self.read_max_mib * MIB,
            max_corpus_bytes=self.read_max_corpus_mib * MIB,
            max_text_chars=self.read_max_text_chars,
            max_uncompressed_bytes=self.read_max_unpacked_mib * MIB,
            max_compression_ratio=self.read_max_compression_ratio,
            timeout_s=self.read_timeout_s,
            max_memory_bytes=self.read_max_memory_mib * MIB,
        )

    def chunking(self) -> "ChunkingConfig":
        """How documents of a new collection are cut."""
        from corpus import ChunkingConfig

        return ChunkingConfig(self.chunk_target_tokens, self.chunk_max_tokens, self.chunk_min_tokens)

    def fusion(self) -> "FusionConfig":
        """How both sides of the index become one order."""
        from index.fusion import FusionConfig

        return FusionConfig(self.fusion_candidates, self.fusion_weight)

    def reader_limits(self) -> "ReaderLimits":
        """What one reading may cost."""
        from rag.generator import ReaderLimits

        return ReaderLimits(self.prompt_tokens, self.short_tokens, self.full_tokens)

    def answerer(self) -> "AnswererConfig":
        """How questions are answered."""
        from rag.answerer import AnswererConfig

        return AnswererConfig(self.top_k, self.max_question_chars)


def load_settings(**overrides: object) -> Settings:
    """The settings in force; `overrides` (a command's options) win over everything.

    Raises SettingsError that names the key, where it stands, and what is wrong with it.
    """
    known = Settings.model_fields
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable[len(PREFIX) :].lower() not in known:
            name = variable[len(PREFIX) :].lower()
            raise SettingsError(f"environment variable {variable}: there is no such setting{_hint(name)}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error, overrides))) from error
    except tomllib.TOMLDecodeError as error:
        files = " or ".join(str(file) for file in settings_files(overrides.get("home")) if file.is_file())
        raise SettingsError(f"{files} isn't valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError, SettingsSourceError) as error:
        raise SettingsError(f"the settings can't be read: {error}") from error


def settings_files(home: object = None) -> tuple[Path, ...]:
    """Where settings files are looked for, the one that wins last. `home` is one given by hand."""
    working = Path.cwd() / FILE_NAME
    chosen = home or os.environ.get(f"{PREFIX}HOME") or _read_toml(working).get("home") or default_home()
    in_home = Path(str(chosen)).expanduser().absolute() / FILE_NAME
    return (working,) if in_home == working else (in_home, working)


def _read_toml(file: Path) -> dict[str, object]:
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _explain(error: ValidationError, overrides: Mapping[str, object]) -> Iterator[str]:
    """One sentence a mistake: where it stands, which key, what is wrong."""
    for mistake in error.errors():
        if not mistake["loc"]:
            yield mistake["msg"].removeprefix("Value error, ")
            continue
        key = str(mistake["loc"][0])
        place = _place(key, overrides)
        if mistake["type"] == "extra_forbidden":
            yield f"{place}: there is no such setting{_hint(key)}"
        else:
            yield f"{place} is {mistake['input']!r}: {mistake['msg'].removeprefix('Value error, ')}"


def _place(key: str, overrides: Mapping[str, object]) -> str:
    """Where the value of a key comes from, with the key as it is written there."""
    if key in overrides:
        return f"setting {key}"
    variable = f"{PREFIX}{key.upper()}"
    if variable in os.environ:
        return f"environment variable {variable}"
    files = [file for file in settings_files(overrides.get("home")) if key in _read_toml(file)]
    return f"{key} in {files[-1]}" if files else f"setting {key}"


def _hint(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the settings are {', '.join(Settings.model_fields)}"
