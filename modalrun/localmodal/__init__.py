"""The local Modal server: enough of the Modal API for the unmodified `modal` SDK and CLI."""
