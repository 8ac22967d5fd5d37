"""What every object has: metadata, conditions, selectors, quantities, field paths, patches, Status; no kind."""
