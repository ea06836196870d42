"""Studies that move: export, import, merge, removal."""
