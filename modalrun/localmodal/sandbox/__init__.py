"""Run sandboxes as processes of this machine."""
