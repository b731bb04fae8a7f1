"""Small tools of no domain."""
