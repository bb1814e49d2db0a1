"""LangChain: HuggingFaceEmbeddings, FAISS and HuggingFacePipeline, as its documentation puts them together."""

import time
from typing import Any

import torch


class System:
    """`config`: job, threads, dtype, embedder, reader, new_tokens, top_k."""

    def __init__(self, config: dict[str, Any], clock: Any) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings, HuggingFacePipeline  # type: ignore[import-not-found]

        torch.set_num_threads(config["threads"])
        self._config, self._clock = config, clock
        self._embeddings = HuggingFaceEmbeddings(
            model_name=config["embedder"],
            model_kwargs={"device": "cpu", "model_kwargs": {"dtype": config["dtype"]}},
            encode_kwargs={"prompt_name": "passage", "normalize_embeddings": True},
            query_encode_kwargs={"prompt_name": "query", "normalize_embeddings": True},
        )
        self._index: Any = None
        self._llm: Any = None
        if config["job"] == "ask":
            self._llm = HuggingFacePipeline.from_model_id(
                config["reader"],
                task="text-generation",
                model_kwargs={"dtype": config["dtype"]},
                pipeline_kwargs={
                    "max_new_tokens": config["new_tokens"],
                    "min_new_tokens": config["new_tokens"],
                    "do_sample": False,
                    "return_full_text": False,
                },
            )

    def settings(self) -> dict[str, str]:
        """What differs from the defaults, and what matters of them."""
        dtype = self._config["dtype"]
        return {
            "embedding": f"HuggingFaceEmbeddings, {dtype}, prompts of the model, unit vectors, batches of 32",
            "index": "FAISS.from_embeddings (exact, in memory)",
            "generation": f"HuggingFacePipeline, {dtype}, do_sample=False, min_new_tokens = max_new_tokens",
        }

    def ingest(self, passages: list[str], file: str) -> dict[str, float]:
        """`passages` into a new index; `file`, the same as documents, isn't needed."""
        from langchain_community.vectorstores import FAISS  # type: ignore[import-not-found]

        started = time.perf_counter()
        vectors = self._embeddings.embed_documents(passages)
        embedded = time.perf_counter()
        self._index = FAISS.from_embeddings(list(zip(passages, vectors, strict=True)), self._embeddings)
        return {"seconds": time.perf_counter() - started, "embed_s": embedded - started}

    def ask(self, question: str, prompt: str, prompt_ids: list[int]) -> dict[str, Any]:
        """Searches with the question, and writes after the prompt."""
        started = time.perf_counter()
        self._index.similarity_search(question, k=self._config["top_k"])
        searched = time.perf_counter()
        clock = self._clock()
        text = self._llm.invoke(prompt, pipeline_kwargs={"streamer": clock})
        return dict(clock.result(searched - started, text))
