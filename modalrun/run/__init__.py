"""Data that submitter, sandbox and observer share. Pure: imports no SDK and no Rich."""
