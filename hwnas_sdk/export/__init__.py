"""From a `LayerGraph` to files a board can run, and the cache that keeps them. No torch here."""
