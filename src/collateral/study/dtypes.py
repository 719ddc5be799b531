"""Bytes of one weight."""

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
