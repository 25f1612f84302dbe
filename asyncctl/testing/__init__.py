"""What authors of controllers test with: a clock that stands still until it is told otherwise.

Nothing here is imported by the runtime.
"""
