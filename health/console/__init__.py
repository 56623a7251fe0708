"""Parts of the console that are about health."""
