"""What every object has: metadata, conditions, selectors, quantities, field paths, patches, Status. It knows no kind."""
