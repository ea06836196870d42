"""Writers of published layouts from a corpus: each file is whole or absent, and equal corpora give equal files."""
