"""What runs inside a system's own virtual environment: `wire.py` is the script, it imports one worker by name.

A peer's worker imports the peer and the standard library only, never this project.
"""
