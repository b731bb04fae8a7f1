"""Turn a compiled pipeline into sandbox specs, image recipes and prices.

Pure: imports no SDK and no Rich.
"""
