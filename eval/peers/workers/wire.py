"""A worker's side of the wire: JSON lines in on stdin, JSON lines out on stdout. Run as a script.

    python wire.py MODULE CONFIG

`MODULE.System(config, TokenClock)` is made once; each line `{"do": "ask", …}` calls its method of that name
with the rest as arguments. A failure ends the process, with its traceback on stderr.
"""

import importlib
import json
import os
import resource
import sys
import time
from typing import Any


class TokenClock:
    """When each token was written. It is a streamer as transformers' `generate` takes one: it is given the
    prompt first, and each token as it comes."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.prompt_tokens = 0
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        """Token ids of the prompt, then of one token at a time."""
        if self.prompt_tokens:
            self.tick()
        else:
            self.prompt_tokens = int(value.shape[-1])

    def end(self) -> None:
        """Nothing is held back, so nothing is left to do."""

    def tick(self) -> None:
        """Another token has been written."""
        self.times.append(time.perf_counter())

    def result(self, search_s: float, text: str) -> dict[str, Any]:
        """`first_s` is from the prompt to the first token, `write_s` from there to the last."""
        return {
            "search_s": search_s,
            "first_s": self.times[0] - self.started,
            "write_s": self.times[-1] - self.times[0],
            "whole_s": search_s + time.perf_counter() - self.started,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": len(self.times),
            "text": text,
        }


def main() -> None:
    """Serves until stdin ends."""
    # Whatever a library prints must not get on the wire.
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    module, config = sys.argv[1:]
    system = importlib.import_module(module).System(json.loads(config), TokenClock)
    _send(wire, system.settings())
    for line in sys.stdin:
        request = json.loads(line)
        _send(wire, getattr(system, request.pop("do"))(**request))


def _send(wire: Any, result: Any) -> None:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    wire.write(json.dumps({"result": result, "peak_mb": peak_mb}) + "\n")


if __name__ == "__main__":
    main()
