"""What the box's inference costs beside other ways to run the same model: `make bench`, docs/performance.md."""
