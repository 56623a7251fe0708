"""A whole fleet through one deployment over HTTP; see docs/benchmarks.md."""
