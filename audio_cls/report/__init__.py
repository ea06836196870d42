"""Figures, tables and one-file HTML pages; the only package that knows plotly."""
