"""A real ZenML server, its MariaDB and an S3-compatible store, as processes on loopback.

`python -m servers FOLDER` (with `tests` on PYTHONPATH) runs them by hand; the tests share one set,
which the first test that needs it starts.
"""
