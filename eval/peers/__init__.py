"""The same work through other programs, for ratios that hold on a noisy machine: `python -m eval.peers --help`.

::

    python -m eval.peers ──JSON lines──▶ workers/wire.py + workers/<system>_worker.py   (one process a system,
                                                                                         each in its own venv)

All systems are loaded at once and asked in turn, one at a time, while the others wait. What each is set to is
in its worker and in the results; `docs/performance.md` has the table.
"""
