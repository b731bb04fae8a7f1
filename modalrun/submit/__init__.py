"""Turn a run spec into a created run."""
