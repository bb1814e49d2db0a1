"""Evaluation: cases, metrics, runs, reports and comparisons. `evaluate` is the facade.

`import eval` hides Python's builtin of that name: import from the package's modules (`from eval.runner import
evaluate`) instead.
"""
