"""Compile pipelines, and read compiled ones, for a stack with our orchestrator in it."""
