"""Drawings of workflows as SVG, laid out without another program."""
