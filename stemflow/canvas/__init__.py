"""The canvas: pure constructors of an immutable signature tree that nest without limit."""

from stemflow.canvas.constructors import Canvas
from stemflow.canvas.heads import call, skew

__all__ = ["Canvas", "call", "skew"]
