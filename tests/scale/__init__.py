"""Several whole hosts behind one proxy: `python -m tests.scale`."""
