"""txtai: a hybrid Embeddings database with content, and an LLM pipeline over transformers."""

import time
from typing import Any

import torch


class System:
    """`config`: job, threads, dtype, embedder, reader, new_tokens, top_k."""

    def __init__(self, config: dict[str, Any], clock: Any) -> None:
        torch.set_num_threads(config["threads"])
        self._config, self._clock = config, clock
        self._embeddings = self._new_index()
        self._llm: Any = None
        if config["job"] == "ask":
            from txtai import LLM  # type: ignore[import-not-found]

            self._llm = LLM(config["reader"], dtype=config["dtype"])

    def _new_index(self) -> Any:
        from txtai import Embeddings

        # It loads the prompts of a sentence-transformers folder by itself.
        return Embeddings(
            path=self._config["embedder"],
            hybrid=True,
            content=True,
            gpu=False,
            vectors={"dtype": self._config["dtype"]},
            models=self._models(),
        )

    def _models(self) -> dict[str, Any]:
        """The loaded model, kept for the next index."""
        self._loaded: dict[str, Any] = getattr(self, "_loaded", {})
        return self._loaded

    def settings(self) -> dict[str, str]:
        """What differs from the defaults, and what matters of them."""
        dtype = self._config["dtype"]
        return {
            "embedding": f"transformers with mean pooling, {dtype}, prompts of the model, batches of 32",
            "index": "hybrid=True (FAISS and BM25), content=True (SQLite)",
            "generation": f"LLM over transformers, {dtype}, do_sample=False, min_new_tokens = max_new_tokens",
        }

    def ingest(self, passages: list[str], file: str) -> dict[str, float | None]:
        """`passages` into a new index; `file`, the same as documents, isn't needed."""
        self._embeddings = self._new_index()
        started = time.perf_counter()
        self._embeddings.index(passages)
        return {"seconds": time.perf_counter() - started, "embed_s": None}

    def ask(self, question: str, prompt: str, prompt_ids: list[int]) -> dict[str, Any]:
        """Searches with the question, and writes after the prompt."""
        count = self._config["new_tokens"]
        started = time.perf_counter()
        self._embeddings.search(question, self._config["top_k"])
        searched = time.perf_counter()
        clock = self._clock()
        text = self._llm(
            prompt,
            maxlength=2048,
            defaultrole="prompt",
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            streamer=clock,
        )
        return dict(clock.result(searched - started, text))
