"""One module a command of `svlm`: `add(commands)` describes its arguments, `run(arguments)` does it and returns the exit code.

Importing them is quick: what is heavy (jax, video, models) is imported by `run`.
"""
