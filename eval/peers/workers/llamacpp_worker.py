"""llama.cpp on the bundled Q4_K_M file, without the reader's adapter: it compares speed, not answers."""

from typing import Any


class System:
    """`config`: threads, gguf, new_tokens."""

    def __init__(self, config: dict[str, Any], clock: Any) -> None:
        import xllamacpp  # type: ignore[import-not-found]

        self._config, self._clock = config, clock
        params = xllamacpp.CommonParams()
        params.model.path = config["gguf"]
        params.n_ctx = 2048
        params.cpuparams.n_threads = config["threads"]
        params.cpuparams_batch.n_threads = config["threads"]
        params.n_parallel = 1
        # Each prompt is read in full, as by the others.
        params.cache_prompt = False
        self._about = xllamacpp.get_system_info().strip()
        self._server = xllamacpp.Server(params)

    def settings(self) -> dict[str, str]:
        """What differs from the defaults, and what the prebuilt wheel is built for."""
        return {
            "generation": "xllamacpp's server, Q4_K_M, temperature 0, ignore_eos, no prompt cache, n_ctx 2048",
            "build": self._about,
        }

    def ask(self, question: str, prompt: str, prompt_ids: list[int]) -> dict[str, Any]:
        """Writes after the prompt's tokens; it has no index to search."""
        clock, pieces = self._clock(), list[str]()

        def on_part(part: dict[str, Any]) -> None:
            choice = part["choices"][0]
            if choice["finish_reason"] is None:
                clock.tick()
                pieces.append(choice["text"])

        request = {
            "prompt": prompt_ids,
            "n_predict": self._config["new_tokens"],
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "stream": True,
        }
        self._server.handle_completions(request, on_part)
        clock.prompt_tokens = len(prompt_ids)
        return dict(clock.result(0.0, "".join(pieces)))
