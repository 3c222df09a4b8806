"""Mutated files through every reader: nothing but SvlmError may leave one, and none may hang or eat memory."""
